"""Closed loop: a policy acts at tables that it never saw, and each order is judged true or false.

Controls say how much words and images matter: an honest policy fails without them.

    none       as it is
    no_words   every word is unknown
    no_image   the image is grey; or nothing in the list of things has attributes
    swapped    another order at the same table; success is of the new order
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from base import flags
from base.driving import Driver
from base.errors import UserError
from base.flags import setting
from base.metrics import share_interval
from loop import progress
from robot import doubt, stills
from robot.film import Film
from robot.sayings import Said, judged, share_true
from worlds import deeds, layouts, orders, tasks
from worlds.table import TableEnv
from worlds.tasks import Task

CONTROLS = ("none", "no_words", "no_image", "swapped")
EVERY_SPLIT = (*layouts.SPLITS, *tasks.FREE_CHOICES)
GREY = 128
NO_WORD = "xxx"
# Of the seeds. Numpy ignores zeros at the end of a seed, so a stream of the recordings must differ
# in a number that is not 0: else `val` shows the tables of the demonstrations.
STREAM = 100
SETTLE = 6  # control steps after the first success: a thing that was let go may still fall


@dataclass
class Trial:
    """What is tried."""

    splits: str | None = setting(
        None,
        "splits with commas between them; none: val,held_pair. At Meta-World: tasks, groups, ten "
        "or all; none: what training had",
    )
    episodes: int = setting(50, "episodes per split", at_least=1)
    verb: str | None = setting(None, "only this verb", choices=orders.VERBS)
    instruction: str | None = setting(
        None, 'your own words, such as "pick up the red star", in place of the splits\' orders'
    )
    say: bool = setting(False, "the policy also says what it sees, judged true or false")
    control: str = setting("none", "what is taken away", choices=CONTROLS)
    seed: int = setting(0, "decides the layouts and the orders")

    def __post_init__(self):
        flags.check(self)
        if self.instruction is not None and self.control == "swapped":
            raise UserError("--instruction with --control swapped", "one of them", "leave one out")

    def split_names(self) -> list[str]:
        """The splits of the table. Raises UserError for a name that is no split."""
        names = (self.splits or "val,held_pair").split(",")
        for name in names:
            if name not in EVERY_SPLIT:
                raise flags.unknown(f"--splits {self.splits}", name, list(EVERY_SPLIT))
        return names


@dataclass
class Episode:
    """What happened. old: whether the order before a swap was done. wrong: other things moved.

    moved: their names. frames and chunks: what robot/film.py kept, if anything. stride: steps from
    a frame to the next. doubt: signals of robot/doubt.py. said:
    what the policy said of the table at the start.
    """

    split: str
    verb: str
    word: str
    text: str
    ever: bool
    end: bool
    old: bool
    wrong: int
    steps: int
    unknown: list[str]
    seconds: list[float]
    moved: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    chunks: list[dict] = field(default_factory=list)
    stride: int = 1
    doubt: dict[str, dict[str, float]] = field(default_factory=dict)
    said: Said | None = None


def draw_task(trial: Trial, split: str, number: int) -> tuple[Task, Task]:
    """The task of an episode, and the task whose order is said: another with `swapped`."""
    rng = np.random.default_rng([trial.seed, STREAM + EVERY_SPLIT.index(split), number, 1])
    if trial.instruction is not None:
        task = tasks.task_for(rng, trial.instruction)
        return task, task
    while True:
        task = tasks.sample_task(rng, split, trial.verb)
        if trial.control != "swapped":
            return task, task
        other = tasks.swapped(rng, task)
        if other is not None:
            return task, other


def blind(seen: dict) -> dict:
    """What is seen, without anything that tells things apart."""
    grey = dict(seen)
    for name in seen:
        if name.startswith("image"):
            grey[name] = np.full_like(seen[name], GREY)
    same = np.zeros_like(seen["kinds"])
    same[seen["kinds"].sum(1) > 0, 0] = 1
    return grey | {"kinds": same}


def shown_of(trial: Trial, seen: dict, kinds: np.ndarray) -> dict:
    """What a policy is shown of what the environment shows."""
    shown = seen | {"kinds": kinds}
    return blind(shown) if trial.control == "no_image" else shown


def run_episode(
    env: TableEnv, driver: Driver, trial: Trial, split: str, number: int, film: Film | None = None
) -> Episode:
    """One episode, until some steps after its first success, or its end. film: what keeps it."""
    task, said = draw_task(trial, split, number)
    said.layout = task.layout
    seed = int(np.random.default_rng([trial.seed, number]).integers(2**31))
    options = {"task": said, "camera": split == "camera"}
    seen, info = env.reset(seed=seed, options=options)
    # As many words as the order has, all of them unknown.
    text = (
        said.text if trial.control != "no_words" else " ".join(NO_WORD for _ in said.text.split())
    )
    unknown = driver.begin(text)
    kinds = stills.kinds_of(task.layout)
    said_of = None
    if trial.say:
        said_of = judged(driver.maker.says(shown_of(trial, seen, kinds)), env.truth().now)
    frames = []
    after, truncated = 0, False
    while after <= SETTLE and not truncated:
        if film is not None:
            frames.append(film.frame(env))
        seen, _, _, truncated, info = env.step(driver.next(shown_of(trial, seen, kinds)))
        after += info["ever"]
    chunks = []
    if film is not None:
        frames.append(film.frame(env))  # how it ended
        chunks = film.chunks(env, driver)
    return Episode(
        split=split,
        verb=said.order.verb,
        word=said.order.word,
        text=said.text,
        ever=bool(info["ever"]),
        end=bool(info["done"]),
        old=said is not task and deeds.is_done(task.order, env.truth()),
        wrong=len(info["wrong"]),
        steps=env.steps,
        unknown=unknown,
        seconds=driver.seconds,
        moved=[task.layout.things[index].name() for index in info["wrong"]],
        frames=frames,
        chunks=chunks,
        doubt=doubt.of_episode(driver.made, text, unknown),
        said=said_of,
    )


def run(
    env: TableEnv,
    make_driver: Callable[[int], Driver],
    trial: Trial,
    film: Film | None = None,
    clips: int = 0,
) -> list[Episode]:
    """All episodes of all splits. film: what keeps the first `clips` episodes of each split."""
    jobs = [(split, n) for split in trial.split_names() for n in range(trial.episodes)]
    episodes = []
    for split, number in progress.bar(jobs, trial.control, "episode"):
        driver = make_driver(number)
        kept = film if number < clips else None
        episodes.append(run_episode(env, driver, trial, split, number, kept))
    return episodes


def task_name(episode: Episode) -> str:
    """The kind of task, as tables name it."""
    if episode.verb != "put":
        return episode.verb
    return "put" if episode.word in ("on", "in") else "relation"


def figures(episodes: list[Episode]) -> dict:
    """Shares with their 95% intervals, over some episodes."""
    total = len(episodes)
    ends = sum(episode.end for episode in episodes)
    result = {"episodes": total}
    for name, count in (
        ("end", ends),
        ("ever", sum(episode.ever for episode in episodes)),
        ("wrong", sum(episode.wrong > 0 for episode in episodes)),
        ("old", sum(episode.old for episode in episodes)),
    ):
        result[name] = count / total
        result[f"{name}_ci95"] = share_interval(count, total)
    steps = [episode.steps for episode in episodes if episode.ever]
    result["steps"] = float(np.median(steps)) if steps else None
    seconds = [each for episode in episodes for each in episode.seconds]
    result["ms_per_chunk"] = 1000 * float(np.median(seconds)) if seconds else None
    result["doubt"] = doubt.medians([episode.doubt for episode in episodes])
    return result


def summary(episodes: list[Episode]) -> dict:
    """{split: {kind of task, and "all": figures}}."""
    table: dict[str, dict] = {}
    for split in dict.fromkeys(episode.split for episode in episodes):
        of_split = [episode for episode in episodes if episode.split == split]
        kinds = dict.fromkeys(sorted(task_name(episode) for episode in of_split))
        table[split] = {
            kind: figures([each for each in of_split if task_name(each) == kind]) for kind in kinds
        }
        table[split]["all"] = figures(of_split)
        said = [episode.said for episode in of_split if episode.said is not None]
        if said:
            table[split]["all"] |= share_true(said)
    return table


def records(episodes: list[Episode]) -> list[dict]:
    """What a file keeps of each episode."""
    names = ("split", "verb", "word", "text", "ever", "end", "old", "wrong", "steps", "doubt")
    kept = []
    for episode in episodes:
        record = {name: getattr(episode, name) for name in names}
        kept.append(record | ({"said": vars(episode.said)} if episode.said else {}))
    return kept


def sayings_lines(table: dict) -> list[str]:
    """A line per split: how many sayings were true."""
    lines = []
    for split, kinds in table.items():
        row = kinds["all"]
        if "true" in row:
            low, high = (100 * bound for bound in row["true_ci95"])
            share = f"{100 * row['true']:.1f}% [{low:.1f}, {high:.1f}]"
            lines.append(f"{split}: {share} of {row['sayings']} sayings are true")
    return lines


def rows(table: dict) -> list[list[str]]:
    """The summary as rows of a Markdown table."""
    result = [["split", "task", "episodes", "done at the end", "ever", "wrong thing", "steps"]]
    for split, kinds in table.items():
        for kind, row in kinds.items():
            low, high = (100 * bound for bound in row["end_ci95"])
            steps = "" if row["steps"] is None else f"{row['steps']:.0f}"
            result.append(
                [
                    split,
                    kind,
                    str(row["episodes"]),
                    f"{100 * row['end']:.1f}% [{low:.1f}, {high:.1f}]",
                    f"{100 * row['ever']:.1f}%",
                    f"{100 * row['wrong']:.1f}%",
                    steps,
                ]
            )
    return result
