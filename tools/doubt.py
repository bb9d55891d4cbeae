"""Does a policy know when it does not know? Doubt against failure, over episodes of run_policy.py.

Reads   files that run_policy.py --json wrote; the first must hold the usual case, such as `val`
Writes  nothing, or a plot (--plot): success among the episodes that are kept, by doubt

    python run_policy.py --splits val,held_wording,twins --json usual.json
    python run_policy.py --splits val --control no_words --json no_words.json
    python -m tools.doubt usual.json no_words.json --plot doubt.png
"""

from dataclasses import dataclass

import numpy as np

from base import files, flags, metrics
from base.files import UserError
from base.flags import setting
from robot import doubt
from show import plots

DO = "name files that run_policy.py --json wrote"


@dataclass
class Question:
    """What is asked, and what is drawn."""

    plot: str | None = setting(None, "write a plot here", metavar="FILE")
    when: str = setting(
        "first",
        "signals of the first chunk, before the arm moves, or their means over the episode",
        choices=doubt.WHENS,
    )

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("results", nargs="+", metavar="FILE", help="from run_policy.py --json")
    parser.add_settings(Question)
    return parser.parse_args(argv)


def read(path: str) -> list[dict]:
    """The episodes of a file, each with its case: the split, and the control if there was one."""
    content = files.read_json(path, "results of run_policy.py", DO)
    episodes = content.get("episodes")
    if not episodes or any("first" not in each.get("doubt", {}) for each in episodes):
        raise UserError(f"{path} without episodes and their doubt", "both", DO)
    control = content["settings"]["control"]
    for episode in episodes:
        episode["control"] = control
        episode["case"] = episode["split"] if control == "none" else f"{episode['split']} {control}"
    return episodes


def signals_of(episodes: list[dict]) -> list[str]:
    """The signals that every episode has."""
    kept = [each["doubt"]["first"] for each in episodes]
    return [name for name in doubt.SIGNALS if all(name in each for each in kept)]


def values(episodes: list[dict], name: str, when: str) -> list[float]:
    return [each["doubt"][when][name] for each in episodes]


def shown(low: list[float], high: list[float]) -> str:
    """The AUC of two sides with its 95% interval, or a dash if a side is empty."""
    found = metrics.auc(low, high)
    if found is None:
        return "–"
    bottom, top = doubt.auc_interval(found, len(low), len(high))
    return f"{found:.2f} [{bottom:.2f}, {top:.2f}]"


def of_case(episodes: list[dict], case: str) -> list[dict]:
    return [each for each in episodes if each["case"] == case]


def detection(episodes: list[dict], when: str) -> list[list[str]]:
    """A row per case: success, and for each signal its median and how well it tells the case from
    the first case."""
    names = signals_of(episodes)
    table = [["case", "episodes", "done", *(f"{name}: median, AUC" for name in names)]]
    cases = list(dict.fromkeys(each["case"] for each in episodes))
    usual = of_case(episodes, cases[0])
    for case in cases:
        some = of_case(episodes, case)
        row = [case, str(len(some)), f"{100 * np.mean([each['end'] for each in some]):.0f}%"]
        for name in names:
            found = values(some, name, when)
            apart = "–" if case == cases[0] else shown(values(usual, name, when), found)
            row.append(f"{np.median(found):.3g}, {apart}")
        table.append(row)
    return table


def failures(episodes: list[dict], when: str) -> list[list[str]]:
    """A row per group of episodes: how well each signal tells its failures from its successes.

    Groups are the cases that have both, all cases without a control, and all.
    """
    names = signals_of(episodes)
    groups = {case: of_case(episodes, case) for case in dict.fromkeys(e["case"] for e in episodes)}
    groups["all without a control"] = [each for each in episodes if each["control"] == "none"]
    groups["all"] = episodes
    table = [["failed against done", "failed", "done", *(f"{name}: AUC" for name in names)]]
    for group, some in groups.items():
        done = [each for each in some if each["end"]]
        failed = [each for each in some if not each["end"]]
        if not done or not failed:
            continue
        row = [group, str(len(failed)), str(len(done))]
        for name in names:
            row.append(shown(values(done, name, when), values(failed, name, when)))
        table.append(row)
    return table


def main(argv=None):
    arguments = parse_args(argv)
    question = flags.resolve(Question, arguments)
    episodes = []
    for path in arguments.results:
        episodes += read(path)
    print(metrics.markdown(detection(episodes, question.when)))
    print()
    print(metrics.markdown(failures(episodes, question.when)))
    if question.plot:
        curves = {}
        for name in signals_of(episodes):
            done = [each["end"] for each in episodes]
            curves[name] = doubt.kept_success(values(episodes, name, question.when), done)
        plots.kept_by_doubt(question.plot, curves)
        print(f"plot in {question.plot}")


if __name__ == "__main__":
    files.run(main)
