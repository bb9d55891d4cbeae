"""What a run costs on 1, 8, 64 and 1,024 GPUs, before anyone pays for it.

Reads   nothing: a training step, the bytes kept for its backward pass and a save are measured here
Writes  docs/scaling.md (--out): time, memory, traffic, checkpoints, the first bottleneck

Minutes on two cores:
    python -m tools.plan_scaling
With a rate measured on the GPU itself (tools.benchmark: parameters · 6 · tokens per second):
    python -m tools.plan_scaling --rate 3e14 --out plan.md \
--rate_from "tools.benchmark --model_config xlarge on one GPU"

A plan is arithmetic: only what the page calls measured was run, and nothing of it on several GPUs.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch

from base import files, flags, metrics
from base.flags import check, setting
from tools import measuring, scaling
from tools.measuring import duration, size
from tools.scaling import GPUS, JOBS, Hardware, Job, Measure, Measured, Plan

PAGE = """# A plan for one GPU, eight, 64 and 1,024
Anyone can make this page again:
```bash
python -m tools.plan_scaling{given}
```
**Never run:** more than four processes (gloo, CPU), NCCL, more than one machine, and each of the
jobs below. The times are sums: traffic and arithmetic do not overlap. So a good run is faster, and
a run on a bad network is slower.

| measured here, {step[on]} | |
|---|---|
| tokens per second of a step of `{model}`, 8 rows of 256 | {step[tokens_per_second]:,.0f} |
| operations per second of this step, by the 6·N convention | {step[rate]:.3g} |
| share of the machine's matrix product | {step[share]:.0%} |
| bytes per second of saving a checkpoint, fsync included | {save} |

A GPU is taken to do {rate:.3g} operations per second ({origin}).

Assumed, none of it measured:
{assumed}

`Plan` in `tools/scaling.py` computes the tables:
- **Compute**: the operations of a row (6·N + attention), shared by the GPUs.
- **Muon** makes every matrix orthogonal on every GPU. So its time does not shrink.
- **Traffic** per GPU and step. DDP sends its float32 gradients twice (ring all-reduce). FSDP2 works
  from 80 M parameters on: it gathers the weights twice per micro-batch, scatters the gradients
  once, and gathers Muon's matrices.
- **State**: float32 weights, gradients, averages and optimizer, and autocast's bfloat16 copies of
  all weights on every GPU.
- **Saving**, every {every} steps. Rank 0 writes last.pt alone. If the weights are split, each rank
  writes its part of the resume state.
- **Not counted**: reading data, evaluations, three small all-reduces per step, failures.

{sections}"""

HEADER = [
    "GPUs",
    "",  # alone, ddp or fsdp
    "rows at once",
    "whole run",
    "compute",
    "Muon",
    "traffic",
    "saving",
    "weights and their state",
    "activations",
    "traffic per step",
    "last.pt, resume",
    "a save",
    "first bottleneck",
]


@dataclass
class Rate:
    """The rate of a GPU, and where the page goes."""

    out: str = setting("docs/scaling.md", "the page", metavar="FILE")
    rate: float | None = setting(
        None,
        "operations per second of one GPU in training, measured on it "
        "(default: --peak times the share of its matrix product that a step reaches here)",
        above=0,
    )
    rate_from: str = setting("", "where --rate was measured; printed on the page")

    def __post_init__(self):
        check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    for kind in (Rate, Hardware, Measure):
        parser.add_settings(kind)
    return parser.parse_args(argv)


def row_of(plan: Plan) -> list[str]:
    """One number of GPUs."""
    if plan.problem:
        # All columns of HEADER between the first and the last are empty.
        return [f"{plan.gpus:,}", *["–"] * 12, f"cannot run: {plan.problem}"]
    # A GPU alone sends nothing.
    parts = [duration(seconds) if seconds else "–" for seconds in plan.seconds.values()]
    name, share = plan.bottleneck
    return [
        f"{plan.gpus:,}",
        plan.parallel,
        f"{plan.micro} (`--accumulate {plan.accumulate}`)",
        duration(3600 * plan.hours),
        *parts,
        size(plan.resident),
        size(plan.activations),
        size(plan.traffic) if plan.traffic else "–",
        f"{size(plan.last)}, {size(plan.resume)}",
        duration(plan.save),
        f"{name}, {100 * share:.0f}% of a step",
    ]


def section(job: Job, hardware: Hardware, measured: Measured) -> str:
    """One job: its size, and a table with a row per number of GPUs."""
    plans = [Plan(job, gpus, hardware, measured) for gpus in GPUS]
    positions = job.rows * job.length * job.steps
    # What a row keeps does not depend on the number of GPUs, so the first plan will do.
    kept = size(plans[0].row_bytes)
    block, outside = size(measured.per_block), size(measured.outside)
    return f"""## {job.name}: {plans[0].weights.count / 1e6:,.1f} M parameters
- {job.rows:,} rows of {job.length} positions per step, {job.steps:,} steps: {positions:.3g}
  positions.
- Reason for the number of steps: {job.decides}.
- A row keeps {kept} for its backward pass. Measured: {block} per block, {outside} outside of them.

{metrics.markdown([HEADER, *map(row_of, plans)])}
"""


def origin(rate: Rate, hardware: Hardware) -> str:
    """Where a GPU's rate comes from, in words."""
    # A rate measured for one size says little about another: small matrices keep a GPU less busy.
    if rate.rate:
        return f"measured: {rate.rate_from or 'given with --rate'}; other sizes reach other shares"
    return (
        f"**not measured**: the share above times --peak {hardware.peak:g}. The only GPU that was "
        "tried reached 20% in `small`, 27% compiled"
    )


def main(argv=None):
    arguments = parse_args(argv)
    rate, hardware, measure = (flags.resolve(kind, arguments) for kind in (Rate, Hardware, Measure))
    torch.set_num_threads(measure.threads or torch.get_num_threads())
    out = Path(rate.out)
    # Refused here, not after minutes of measuring.
    files.writable_folder(out.parent)
    step = measuring.measure_step(measure.model_config, measure.seed)
    save_rate = measuring.measure_save()
    # Without a measured rate: the share of this machine, at the peak of the data sheet.
    per_second = rate.rate or step["share"] * hardware.peak
    sections = []
    for job in JOBS:
        kept = measuring.kept_bytes(job, measure.seed)
        sections.append(section(job, hardware, Measured(per_second, *kept, save_rate)))
        # Shown at once: the measurements of the next job take a while.
        print(sections[-1])
    # The page must repeat the rate, or its command would make another page.
    words = ["--rate", f"{rate.rate:g}", "--rate_from", str(rate.rate_from)] if rate.rate else []
    given = " " + shlex.join(words) if words else ""
    page = PAGE.format(
        step=step,
        given=given,
        model=measure.model_config,
        origin=origin(rate, hardware),
        rate=per_second,
        save=size(save_rate),
        every=scaling.EVERY,
        assumed=scaling.assumptions(hardware),
        sections="\n".join(sections),
    )
    files.write_text(out, page)
    print(f"done: {out}")


if __name__ == "__main__":
    files.run(main)
