"""Closed loop at Meta-World: episodes of each task, and figures by group.

Published averages are means of the four groups, not of the 50 tasks. The groups have 28, 11, 6 and
5 tasks. An episode ends with its first success.

Meta-World judges the task of its scene, whatever is said. So with `swapped`, which says another
task's instruction, success is of the task that was not said: an obedient policy fails.
"""

from collections.abc import Callable

import numpy as np

from base.driving import Driver
from base.errors import UserError
from loop import progress
from robot import doubt, film, metaworld_demos
from robot.scores import NO_WORD, STREAM, Episode, Trial, shown_of
from worlds import metaworld
from worlds.metaworld import MetaWorld

STRIDE = 8  # steps per kept image: ten images per second


def task_names(trial: Trial, trained: str) -> list[str]:
    """The tasks that are tried. trained: names of the checkpoint's tasks."""
    if trial.verb is not None:
        raise UserError(f"--verb {trial.verb} at Meta-World", "tasks", "name them with --splits")
    if trial.say:
        raise UserError("--say at Meta-World", "a policy of the table", "leave out --say")
    return metaworld.tasks_of(trial.splits or trained)


def said_at(trial: Trial, task: str, trained: list[str], rng: np.random.Generator) -> str:
    """The words that a policy hears at a task."""
    text = trial.instruction or metaworld.TASKS[task][1]
    if trial.control == "no_words":
        return " ".join(NO_WORD for _ in text.split())
    if trial.control == "swapped":
        others = [name for name in trained if name != task]
        if not others:
            raise UserError(
                "--control swapped for a policy of a single task",
                "a policy that was trained on several",
                "train it on more tasks",
            )
        return metaworld.TASKS[others[int(rng.integers(len(others)))]][1]
    return text


def run_episode(
    env: MetaWorld,
    driver: Driver,
    trial: Trial,
    trained: list[str],
    number: int,
    filmed: bool = False,
) -> Episode:
    """One episode of at most 500 steps. filmed: keep every eighth image, ten per second."""
    index = list(metaworld.TASKS).index(env.task)
    rng = np.random.default_rng([trial.seed, STREAM, index, number, 1])
    seen, info = env.reset(seed=int(rng.integers(2**31)))
    text = said_at(trial, env.task, trained, rng)
    unknown = driver.begin(text)
    kinds = metaworld_demos.kinds()
    ended, frames = False, []
    while not ended:
        if filmed and env.steps % STRIDE == 0:
            frames.append(film.compress(env.picture(film.SIDE)))
        if env.image_size is not None and driver.looks():
            seen["image"] = env.picture()
        shown = shown_of(trial, seen, kinds)
        if trial.control == "no_image":
            # The things' kinds tell nothing here. Their places are what a list shows.
            shown["things"] = np.zeros_like(seen["things"])
        seen, _, done, truncated, info = env.step(driver.next(shown))
        ended = done or truncated
    if filmed:
        frames.append(film.compress(env.picture(film.SIDE)))  # how it ended
    return Episode(
        split=env.group,
        verb=env.task,
        word="",
        text=text,
        ever=bool(info["ever"]),
        end=bool(info["done"]),
        old=trial.control == "swapped" and bool(info["ever"]),
        wrong=0,
        steps=env.steps,
        unknown=unknown,
        seconds=driver.seconds,
        frames=frames,
        chunks=film.chunks_of(driver, env.pixels) if filmed else [],
        stride=STRIDE,
        doubt=doubt.of_episode(driver.made, text, unknown),
    )


def run(
    make_driver: Callable[[int], Driver],
    trial: Trial,
    trained: str,
    image_side: int | None,
    clips: int = 0,
) -> list[Episode]:
    """All episodes of all tasks, group by group. clips: about as many of each group are filmed."""
    names = task_names(trial, trained)
    names.sort(key=lambda name: metaworld.GROUPS.index(metaworld.TASKS[name][0]))
    episodes = []
    for name in progress.bar(names, trial.control, "task"):
        env = MetaWorld(name, image_side)
        group = [each for each in names if metaworld.TASKS[each][0] == env.group]
        filmed = min(clips, max(1, clips // len(group)))
        for number in range(trial.episodes):
            driver = make_driver(number)
            known = metaworld.tasks_of(trained)
            episode = run_episode(env, driver, trial, known, number, number < filmed)
            episodes.append(episode)
        env.close()
    return episodes


def mean_of_groups(table: dict) -> float:
    """The mean of the groups' shares of success, as published averages are."""
    return float(np.mean([kinds["all"]["ever"] for kinds in table.values()]))
