"""What a run costs on 1, 8, 64 and 1,024 GPUs, before anyone pays for it: time, memory, traffic, checkpoints, the first bottleneck.

Reads   nothing: a training step, what it keeps for the backward pass, and a save are measured on this machine
Writes  docs/scaling.md (--out)

Minutes on two cores:
    python plan_scaling.py
With a rate measured on the GPU itself (benchmark.py: parameters · 6 · tokens a second):
    python plan_scaling.py --rate 3e14 --rate_from "benchmark.py --model_config xlarge on one GPU" --out plan.md

A plan is arithmetic: only what the page calls measured was run, and nothing of it on more than one GPU.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch

import checkpoint
import config
import diffusion
import files
import hardware
import metrics
import scaling
import training
from config import ModelConfig, TrainConfig
from files import UserError
from model import Denoiser
from scaling import ASSUMED, GPUS, JOBS, Job

PAGE = """# A plan for one GPU, eight, 64 and 1,024
Made by `python plan_scaling.py`, which anyone can run again. **Never run:** more than four processes (gloo, CPU); NCCL; more than one
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
    parser = config.Parser(__doc__)
    parser.add_argument("--out", default="docs/scaling.md", help="the page (default %(default)s)")
    parser.add_argument("--rate", type=float, help="floating-point operations a second of one GPU in training, measured on it (default: the share "
                        "of its matrix product that a step reaches here, times --peak)")
    parser.add_argument("--rate_from", default="", help="where --rate was measured; printed on the page")
    for name, (value, words) in ASSUMED.items():
        parser.add_argument(f"--{name}", type=float, default=value, help=f"{words} (default {value:g})")
    parser.add_argument("--model_config", default="tiny", metavar="|".join(config.NAMED_SIZES), help="size of the measured step (default tiny)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and tokens that are measured (default 0)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 means torch's own choice (default 0)")
    return parser.parse_args(argv)


def measure_step(args, rows: int = 8, length: int = 256) -> dict:
    """One optimizer step here: its floating-point operations a second, and their share of the matrix product's; medians of three."""
    device = hardware.choose_device("auto")
    precision, _ = hardware.choose_precision("auto", device)
    torch.manual_seed(args.seed)
    model = Denoiser(ModelConfig(**config.named_size(args.model_config))).to(device)
    tokens = torch.randint(0, model.config.output_size, (rows, length), device=device)
    free = torch.arange(length, device=device).expand(rows, -1) > 0
    cfg = TrainConfig()
    optimizers, scaler = training.make_optimizers(model, cfg), torch.amp.GradScaler(device.type, enabled=False)
    autocast = lambda: torch.autocast(device.type, precision, enabled=precision != torch.float32)
    loss_fn = lambda model, batch, rng: diffusion.loss(model.bind(), tokens, free, mask_id=model.config.vocab_size - 1, rng=rng)
    step = lambda: training.optimizer_step(model, loss_fn, [{"weight": 1.0}], cfg, 1, optimizers, scaler, autocast)
    a, b = (torch.randn(2048, 2048, device=device, dtype=precision) for _ in range(2))
    seconds: dict = {step: [], (lambda: a @ b): []}
    for turn in range(4):
        for work, times in seconds.items():
            clock = time.perf_counter()
            work()
            torch.cuda.synchronize() if device.type == "cuda" else None
            times += [time.perf_counter() - clock] if turn else []  # the first is for warming up
    one, product = (statistics.median(times) for times in seconds.values())
    rate = model.training_flops(length) * rows * length / one
    what = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {"rate": rate, "tokens_per_second": rows * length / one, "share": rate / (2 * 2048 ** 3 / product), "on": f"{what}, {precision}"}


def kept_bytes(job: Job, layers: int, rows: int, seed: int) -> int:
    """Bytes that autograd really saves here for the backward pass of so many rows and layers in bfloat16, the weights' copies included."""
    torch.manual_seed(seed)
    model = Denoiser(ModelConfig(**config.to_dict(job.model) | {"layers": layers}))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    seen: dict[int, int] = {}

    def note(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return value

    tokens = torch.randint(0, job.model.output_size, (rows, job.length))
    condition = model.keys_values(torch.randn(rows, 50, job.model.condition_width)) if job.model.condition_width else None
    free = torch.arange(job.length).expand(rows, -1) > 0
    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value), torch.autocast("cpu", torch.bfloat16):
        value, _ = diffusion.loss(model.bind(None, condition), tokens, free, mask_id=job.model.vocab_size - 1,
                                  rng=torch.Generator().manual_seed(seed), uniform=torch.full((rows,), 0.5))
    del value
    return sum(seen.values())


def measure_save(parameters: int = 25_000_000) -> float:
    """Bytes a second of checkpoint.save here, fsync and rename included."""
    content = {"kind": "text", "weights": {"weight": torch.randn(parameters)}}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        clock = time.perf_counter()
        checkpoint.save(Path(folder) / "save.pt", content)
        return 4 * parameters / (time.perf_counter() - clock)


def short(value: float, units: tuple) -> str:
    """Three digits and the largest unit that fits."""
    return next(f"{value / unit:.3g} {name}" for unit, name in units if value >= unit or name == units[-1][1])


size = lambda count: short(count, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")))
duration = lambda seconds: short(seconds, ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")))


def section(job: Job, rate: float, args, kept: tuple[float, float], save_rate: float) -> str:
    """One job's table."""
    N = scaling.weights_of(job.model)[0]
    rows = [["GPUs", "", "rows at once", "whole run", "compute", "Muon", "traffic", "saving", "weights and their state", "activations",
             "traffic a step", "last.pt, resume", "a save", "first bottleneck"]]
    for gpus in GPUS:
        one = scaling.plan(job, gpus, rate, vars(args), kept, save_rate)
        if "seconds" not in one:
            rows.append([f"{gpus:,}", *["–"] * 12, f"cannot run: {one['why']}"])
            continue
        parts = [duration(one["seconds"][name]) if one["seconds"][name] else "–" for name in ("compute", "Muon", "traffic", "saving")]
        rows.append([f"{gpus:,}", one["parallel"], f"{one['micro']} (`--accumulate {one['accumulate']}`)", duration(3600 * one["hours"]), *parts,
                     size(one["resident"]), size(one["activations"]), size(one["traffic"]) if one["traffic"] else "–",
                     f"{size(one['last'])}, {size(one['resume'])}", duration(one["save"]), f"{one['why']}, {100 * one['share']:.0f}% of a step"])
    return f"""## {job.name}: {N / 1e6:,.1f} M parameters
{job.rows:,} rows of {job.length} positions a step, {job.steps:,} steps: {job.rows * job.length * job.steps:.3g} positions ({job.decides}).
A row keeps {size(kept[0] + kept[1] * job.model.layers)} for its backward pass (measured: {size(kept[1])} a block, {size(kept[0])} outside of them).

{metrics.markdown(rows)}
"""


def main(argv=None):
    args = parse_args(argv)
    if any(getattr(args, name) <= 0 for name in ASSUMED) or (args.rate is not None and args.rate <= 0):
        raise UserError("a rate or size of zero or less", "positive numbers", "correct --rate, --peak, --memory, --link or --network")
    config.named_size(args.model_config)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    out = Path(args.out)
    files.writable_folder(out.parent)
    step, save_rate = measure_step(args), measure_save()
    rate = args.rate or step["share"] * args.peak
    origin = f"measured: {args.rate_from or 'given with --rate'}" if args.rate else \
        f"**not measured**: the share above times --peak {args.peak:g}. No GPU was there; a GPU may reach another share"
    sections = []
    for job in JOBS:
        one, two = (kept_bytes(job, layers, 2, args.seed) - kept_bytes(job, layers, 1, args.seed) for layers in (1, 2))
        sections.append(section(job, rate, args, (2 * one - two, two - one), save_rate))
        print(sections[-1])
    files.write_text(out, PAGE.format(step=step, model=args.model_config, origin=origin, rate=rate, save=size(save_rate), every=scaling.EVERY,
                                      assumed="\n".join(f"- `--{name} {getattr(args, name):g}`: {words}" for name, (_, words) in ASSUMED.items()),
                                      sections="\n".join(sections)))
    print(f"done: {out}")


if __name__ == "__main__":
    files.run(main)
