"""Few data, many passes: diffusion against a tuned autoregressive twin on the same few texts.

Reads   data_full/ (--data_dir): the first whole documents of the train split, and val
Writes  a run folder per trial (--out); a Markdown table on the screen; --picture; --json

Four minutes on a laptop, after data_prep.py as in docs/stories.md:
    python -m tools.few_data --data_dir data_mine --out runs/few_laptop --unique_tokens 2000
        --passes 256 --trials 0:0.1,0.2:0.1 --d_model 64 --heads 2 --layers 2 --max_length 128
        --learning_rate 0.01 --warmup_steps 20 --eval_documents 23
For real, at most 410 million tokens (its first line says how much arithmetic that is):
    python -m tools.few_data --unique_tokens 100000,300000 --passes 128 --picture few_data.png

Both sides get the same trials: dropout and weight decay. All runs have the same data, order of
rows, steps and constant learning rate after the warm-up, so each point of a curve is a finished
training. Averaged weights are scored at half a pass, and then at passes that grow by a quarter.
Every run's best point counts. A run stops early after --patience evaluations in a row that were no
better than its best. With 6 of them it has made about 3.8 times the passes of its best.

The trials are chosen on the first --eval_documents of val. The gap between the best trials is
measured on the other documents of val, which chose nothing. The figure of diffusion is a bound, and
the figure of the twin is exact. The tokenizer has seen all texts, for both sides.

The same command again keeps finished runs and continues a stopped run. A larger --passes continues
the runs that did not stop early.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from base import files, flags, metrics
from base.files import UserError
from base.flags import setting
from loop import hardware
from show import plots
from tools import few_gap, few_runs


@dataclass
class FewData:
    """What is compared: data, trials and passes."""

    data_dir: str = setting("data_full", "folder from data_prep.py", metavar="FOLDER")
    out: str = setting("runs/few_data", "a run folder per trial goes here", metavar="FOLDER")
    unique_tokens: str = setting("100000,300000", "numbers of tokens, with commas between them")
    trials: str = setting(
        "0:0.1,0.1:0.1,0.2:0.1,0.1:0.5", "dropout:weight_decay of each trial, on both sides"
    )
    passes: int = setting(128, "passes over the tokens, at most", at_least=1)
    patience: int = setting(
        6, "a run stops after this many evaluations without a better one; 0: never", at_least=0
    )
    eval_documents: int = setting(
        200, "the first held-out documents choose the best point and trial", at_least=1
    )
    documents: int = setting(
        0, "measure the gap within the first held-out documents; 0: all", at_least=0
    )
    draws: int = setting(8, "noise levels per row for the gap", at_least=1)
    d_model: int = setting(128, "width of the networks", at_least=8)
    heads: int = setting(4, "attention heads", at_least=1)
    layers: int = setting(4, "transformer blocks", at_least=1)
    max_length: int = setting(256, "longest row, in tokens", at_least=2)
    batch_size: int = setting(16, "rows per step", at_least=1)
    learning_rate: float = setting(2e-3, "learning rate after the warm-up", above=0.0)
    warmup_steps: int = setting(50, "steps of linear warm-up", at_least=0)
    seed: int = setting(0, "decides the weights, the data order and the masks", at_least=0)
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)
    picture: str | None = setting(None, "draw the curves into this PNG", metavar="FILE")
    json: str | None = setting(None, "write all figures here", metavar="FILE")

    def __post_init__(self):
        flags.check(self)
        flags.numbers("unique_tokens", self.unique_tokens)
        read_trials(self.trials)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(FewData)
    return parser.parse_args(argv)


def read_trials(text: str) -> list[tuple[float, float]]:
    """ "0:0.1,0.2:0.1" -> [(0.0, 0.1), (0.2, 0.1)]: dropouts and weight decays."""
    try:
        pairs = [tuple(map(float, word.split(":"))) for word in text.split(",")]
        good = all(len(pair) == 2 and 0 <= pair[0] < 1 and 0 <= pair[1] < 100 for pair in pairs)
    except ValueError:
        good = False
    if not good:
        example = "pairs of dropout (below 1) and weight decay"
        raise UserError(f"--trials {text}", example, "for example 0:0.1,0.1:0.5")
    return list(dict.fromkeys(pairs))


def prepare(options: FewData) -> list[few_runs.Trial]:
    """All runs. Raises UserError before hours of training for what would fail behind them."""
    for path in (options.json, options.picture):
        if path:
            files.writable_folder(Path(path).parent)
    hardware.choose_device(options.device)  # for its error alone
    trials, runs = read_trials(options.trials), []
    wanted = sorted(set(flags.numbers("unique_tokens", options.unique_tokens)))
    for few in few_runs.read_few(options.data_dir, options.max_length, wanted):
        runs += few_runs.plan(few, Path(options.out), trials, options)
    return runs


def train_all(runs: list[few_runs.Trial], options: FewData) -> None:
    """Train what is not finished, after a line that says what it takes at most.

    Raises UserError before the first step if a folder holds another run.
    """
    left = [trial for trial in runs if not few_runs.is_finished(trial)]
    tokens = sum(options.passes * trial.few.tokens for trial in left)
    work = sum(few_runs.operations(trial, options.passes) for trial in left)
    say(
        f"{len(runs)} runs, {len(runs) - len(left)} finished; the others take at most "
        f"{tokens / 1e6:,.1f} million tokens and {work:.1e} operations, without evaluations"
    )
    for number, trial in enumerate(left, 1):
        say(f"run {number} of {len(left)}: {trial.title}")
        few_runs.train(trial, options.data_dir, options.device, options.threads)


def say(line: str) -> None:
    print(line, file=sys.stderr)  # stdout holds the tables only


def runs_table(rows: list[dict]) -> str:
    """A row per run; the best trial of each side is bold."""
    head = ["tokens", "side", "dropout:weight decay", "best bits per byte"]
    table = [[*head, "passes at the best", "passes run"]]
    for row in rows:
        best = f"{row['best_bits_per_byte']:.4f}"
        table.append(
            [
                f"{row['tokens']:,}",
                row["side"],
                row["trial"],
                f"**{best}**" if row["is_best"] else best,
                f"{row['passes_at_best']:.1f}",
                f"{row['passes_run']:.1f}",
            ]
        )
    return metrics.markdown(table)


def gaps_table(gaps: list[dict]) -> str:
    """A row per number of tokens: both best trials and the gap between them."""
    head = ["tokens", "documents", "diffusion", "twin", "gap in bits per byte"]
    table = [[*head, "verdict"]]
    for gap in gaps:
        sides = [f"{gap[side]:.4f} ({gap[f'{side}_trial']})" for side in few_runs.SIDES]
        cells = [f"{gap['tokens']:,}", f"{gap['documents']:,}", *sides]
        table.append([*cells, metrics.interval(gap, "gap", digits=4), gap["verdict"]])
    return metrics.markdown(table)


def main(argv=None):
    options = flags.resolve(FewData, parse_args(argv))
    runs = prepare(options)
    train_all(runs, options)
    rows = [few_runs.curve(trial) for trial in runs]
    few_gap.mark_best(rows)
    print(runs_table(rows), end="\n\n")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = hardware.choose_device(options.device)
    gaps = [
        few_gap.gap_of(diffusion, twin, options, device)
        for diffusion, twin in few_gap.best_pairs(rows)
    ]
    print(gaps_table(gaps))
    print(few_gap.note(gaps))
    if options.picture:
        plots.few_data(options.picture, rows)
    if options.json:
        files.write_json(options.json, {**flags.to_dict(options), "runs": rows, "gaps": gaps})


if __name__ == "__main__":
    files.run(main)
