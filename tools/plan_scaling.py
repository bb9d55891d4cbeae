"""What a run costs on 1, 8, 64 and 1,024 GPUs, before anyone pays for it: time, memory, traffic, checkpoints, the first bottleneck.

Reads   nothing: a training step, what it keeps for the backward pass, and a save are measured on this machine
Writes  docs/scaling.md (--out)

Minutes on two cores:
    python -m tools.plan_scaling
With a rate measured on the GPU itself (benchmark.py: parameters · 6 · tokens a second):
    python -m tools.plan_scaling --rate 3e14 --rate_from "benchmark.py --model_config xlarge on one GPU" --out plan.md

A plan is arithmetic: only what the page calls measured was run, and nothing of it on more than one GPU.
"""

from pathlib import Path

import torch

from base import config, files, flags, metrics
from base.files import UserError
from tools import scaling
from tools.scaling import ASSUMED, GPUS, JOBS, Job, duration, size

PAGE = """# A plan for one GPU, eight, 64 and 1,024
Made by `python -m tools.plan_scaling{given}`, which anyone can run again. **Never run:** more than four processes (gloo, CPU); NCCL; more than one
machine; any of the jobs below. Times below are sums without overlap of traffic and arithmetic: worse than a good run, better than a bad network.

Measured here ({step[on]}): a step of `{model}` with 8 rows of 256 trains {step[tokens_per_second]:,.0f} tokens a second, {step[rate]:.3g}
operations a second by the 6·N convention, {step[share]:.0%} of the machine's matrix product.
A checkpoint is saved, fsync included, at {save} a second.

One GPU is taken to do {rate:.3g} operations a second ({origin}).
Assumed, none of it measured:
{assumed}

How it is computed: `plan` in `scaling.py`. Compute: operations of a row (6·N + attention) over the GPUs. Muon makes every matrix
orthogonal on every GPU, so its time does not shrink. Traffic a GPU and step: DDP sends its float32 gradients twice (ring all-reduce);
FSDP2, from 80 M parameters on, gathers the weights twice a micro-batch, scatters gradients once, and gathers Muon's matrices.
State: float32 weights, gradients, averages, optimizer; autocast's bfloat16 copies of all weights, on every GPU.
Every {every} steps rank 0 writes last.pt alone, and of split weights each rank
its part of the resume state at the rate above. Not counted: reading data, evaluations, three small all-reduces a step, failures.

{sections}"""


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("--out", default="docs/scaling.md", help="the page (default %(default)s)")
    parser.add_argument(
        "--rate",
        type=float,
        help="floating-point operations a second of one GPU in training, measured on it (default: the share "
        "of its matrix product that a step reaches here, times --peak)",
    )
    parser.add_argument(
        "--rate_from", default="", help="where --rate was measured; printed on the page"
    )
    scaling.add_flags(parser, ASSUMED)
    return parser.parse_args(argv)


def section(job: Job, rate: float, args, kept: tuple[float, float], save_rate: float) -> str:
    """One job's table."""
    N = scaling.weights_of(job.model)[0]
    rows = [
        [
            "GPUs",
            "",
            "rows at once",
            "whole run",
            "compute",
            "Muon",
            "traffic",
            "saving",
            "weights and their state",
            "activations",
            "traffic a step",
            "last.pt, resume",
            "a save",
            "first bottleneck",
        ]
    ]
    for gpus in GPUS:
        one = scaling.plan(job, gpus, rate, vars(args), kept, save_rate)
        if "seconds" not in one:
            rows.append([f"{gpus:,}", *["–"] * 12, f"cannot run: {one['why']}"])
            continue
        parts = [
            duration(one["seconds"][name]) if one["seconds"][name] else "–"
            for name in ("compute", "Muon", "traffic", "saving")
        ]
        rows.append(
            [
                f"{gpus:,}",
                one["parallel"],
                f"{one['micro']} (`--accumulate {one['accumulate']}`)",
                duration(3600 * one["hours"]),
                *parts,
                size(one["resident"]),
                size(one["activations"]),
                size(one["traffic"]) if one["traffic"] else "–",
                f"{size(one['last'])}, {size(one['resume'])}",
                duration(one["save"]),
                f"{one['why']}, {100 * one['share']:.0f}% of a step",
            ]
        )
    return f"""## {job.name}: {N / 1e6:,.1f} M parameters
{job.rows:,} rows of {job.length} positions a step, {job.steps:,} steps: {job.rows * job.length * job.steps:.3g} positions ({job.decides}).
A row keeps {size(kept[0] + kept[1] * job.model.layers)} for its backward pass (measured: {size(kept[1])} a block, {size(kept[0])} outside of them).

{metrics.markdown(rows)}
"""


def main(argv=None):
    args = parse_args(argv)
    if any(getattr(args, name) <= 0 for name in ASSUMED) or (
        args.rate is not None and args.rate <= 0
    ):
        raise UserError(
            "a rate or size of zero or less",
            "positive numbers",
            "correct --rate, --peak, --memory, --link or --network",
        )
    config.named_size(args.model_config)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    out = Path(args.out)
    files.writable_folder(out.parent)
    step, save_rate = scaling.measure_step(args.model_config, args.seed), scaling.measure_save()
    rate = args.rate or step["share"] * args.peak
    given = f' --rate {args.rate:g} --rate_from "{args.rate_from}"' if args.rate else ""
    origin = (
        f"measured: {args.rate_from or 'given with --rate'}; other sizes reach other shares"
        if args.rate
        else f"**not measured**: the share above times --peak {args.peak:g}. The one GPU that was tried reached 20% in `small`, 27% compiled"
    )
    sections = []
    for job in JOBS:
        sections.append(section(job, rate, args, scaling.kept_bytes(job, args.seed), save_rate))
        print(sections[-1])
    assumed = "\n".join(
        f"- `--{name} {getattr(args, name):g}`: {words}" for name, (_, words) in ASSUMED.items()
    )
    files.write_text(
        out,
        PAGE.format(
            step=step,
            given=given,
            model=args.model_config,
            origin=origin,
            rate=rate,
            save=size(save_rate),
            every=scaling.EVERY,
            assumed=assumed,
            sections="\n".join(sections),
        ),
    )
    print(f"done: {out}")


if __name__ == "__main__":
    files.run(main)
