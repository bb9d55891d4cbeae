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
    """What is drawn."""

    plot: str | None = setting(None, "write a plot here", metavar="FILE")

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
    if not episodes or "doubt" not in episodes[0]:
        raise UserError(f"{path} without episodes and their doubt", "both", DO)
    control = content["settings"]["control"]
    for episode in episodes:
        episode["case"] = episode["split"] if control == "none" else f"{episode['split']} {control}"
    return episodes


def signals_of(episodes: list[dict]) -> list[str]:
    """The signals that every episode has."""
    return [name for name in doubt.SIGNALS if all(name in each["doubt"] for each in episodes)]


def values(episodes: list[dict], name: str) -> list[float]:
    return [each["doubt"][name] for each in episodes]


def shown(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f}"


def rows(episodes: list[dict]) -> list[list[str]]:
    """A row per case: episodes, success, and for each signal its median and how well it tells the
    case from the first case. A last row: how well each tells failures from successes, over all.
    """
    names = signals_of(episodes)
    table = [["case", "episodes", "done", *(f"{name}: median, AUC" for name in names)]]
    cases = list(dict.fromkeys(each["case"] for each in episodes))
    usual = [each for each in episodes if each["case"] == cases[0]]
    for case in cases:
        some = [each for each in episodes if each["case"] == case]
        row = [case, str(len(some)), f"{100 * np.mean([each['end'] for each in some]):.0f}%"]
        for name in names:
            apart = None
            if case != cases[0]:
                apart = doubt.auc(values(usual, name), values(some, name))
            row.append(f"{np.median(values(some, name)):.2f}, {shown(apart)}")
        table.append(row)
    done = [each for each in episodes if each["end"]]
    failed = [each for each in episodes if not each["end"]]
    last = ["failures against successes", f"{len(failed)} and {len(done)}", ""]
    for name in names:
        last.append(shown(doubt.auc(values(done, name), values(failed, name))))
    return [*table, last]


def main(argv=None):
    arguments = parse_args(argv)
    question = flags.resolve(Question, arguments)
    episodes = []
    for path in arguments.results:
        episodes += read(path)
    print(metrics.markdown(rows(episodes)))
    if question.plot:
        curves = {}
        for name in signals_of(episodes):
            done = [each["end"] for each in episodes]
            curves[name] = doubt.kept_success(values(episodes, name), done)
        plots.kept_by_doubt(question.plot, curves)
        print(f"plot in {question.plot}")


if __name__ == "__main__":
    files.run(main)
