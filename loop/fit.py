"""fit(): the one training loop (floor 3). The loss, the data and the previews are passed in.

What it owns is what is the same everywhere: steps, learning rate, accumulation, clipping, averaged weights,
precision, compilation, the stop on a non-finite loss, log.jsonl, saving, resuming, a clean stop on SIGTERM.

The step decides everything: the batch and the randomness of step s are functions of (seed, s) alone. A run that
was killed and resumed therefore equals a straight one to the bit, and no generator's state needs saving. Under torchrun
the micro-batches of a step are dealt to the processes (distributed.py), and the step stays what it was.
"""

import contextlib
import json
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from base import files, flags
from base.config import TrainConfig
from base.files import UserError
from base.randomness import dropout_seed, step_seed
from loop import checkpoint, distributed
from loop.hardware import choose_device, choose_precision, keep_freed_memory
from loop.muon import Muon


def start(cfg: TrainConfig) -> torch.device:
    """Set threads and seed, choose and print the device."""
    keep_freed_memory()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    torch.manual_seed(cfg.seed)
    device = distributed.own_gpu(choose_device(cfg.device))
    several = f", {distributed.world()} processes" if distributed.world() > 1 else ""
    distributed.say(
        f"device: {device}{several}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}"
    )
    return device


def find_resume(out, resume: str | None, kinds: tuple[str, ...]) -> dict | None:
    """The content of resume.pt in the run folder `out` if the run is to go on; None if it is to begin.

    resume: "must" (--resume), "auto" (--resume auto: go on if there is something to go on from) or None.
    Raises UserError if there is none to go on from, or one that would be overwritten.
    """
    path = Path(out) / "resume.pt"
    if resume is None and path.exists():
        raise UserError(
            f"a run in {out}", "an empty run folder", "go on with --resume, or choose another --out"
        )
    if resume == "must" or (resume == "auto" and path.exists()):
        return checkpoint.load(path, kinds=kinds, do="start a run without --resume")
    return None


def learning_rate(step: int, cfg: TrainConfig) -> float:
    """Share of the peak at `step` (0-based): linear warm-up, then a cosine down to cfg.final_learning_rate."""
    if step < cfg.warmup_steps:
        return (step + 1) / cfg.warmup_steps
    done = min(1.0, (step - cfg.warmup_steps) / max(1, cfg.max_steps - cfg.warmup_steps))
    return cfg.final_learning_rate + (1 - cfg.final_learning_rate) * 0.5 * (
        1 + math.cos(math.pi * done)
    )


def make_optimizers(model: nn.Module, cfg: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon for the blocks' matrices and AdamW for the rest. Their updates are of one size: one learning rate."""
    inner = re.compile(r"(^|\.)(blocks|layers)\.\d+\.")
    hidden = [
        w
        for name, w in model.named_parameters()
        if w.requires_grad and w.ndim == 2 and inner.search(name)
    ]
    inside = {id(w) for w in hidden}
    rest = [w for w in model.parameters() if w.requires_grad and id(w) not in inside]
    if cfg.optimizer == "adamw" or not hidden:
        rest, hidden = hidden + rest, []
    groups = [
        {"params": [w for w in rest if w.ndim >= 2], "weight_decay": cfg.weight_decay},
        {"params": [w for w in rest if w.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers = [
        torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=cfg.learning_rate, betas=(0.9, cfg.beta2)
        )
    ]
    if hidden:
        optimizers.append(Muon(hidden, lr=cfg.learning_rate, weight_decay=cfg.weight_decay))
    return optimizers


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """The CPU generator of one step: stream 0 for its first micro-batch, 1 for the noise levels, then one a micro-batch."""
    return torch.Generator().manual_seed(step_seed(seed, step, stream))


class StopSignal:
    """SIGTERM and Ctrl-C ask for a stop after the current step; a second Ctrl-C stops at once."""

    def __enter__(self):
        self.received = None
        self.before = {}
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self.note)
        return self

    def note(self, number, frame):
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number

    def __exit__(self, *exc):
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Log:
    """log.jsonl: one JSON object a line. Resuming drops what a killed run wrote behind its last saved state."""

    def __init__(self, path: Path, step: int):
        self.file = None
        if not distributed.leads():
            return
        kept = []
        if step and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    if json.loads(line).get("step", 0) <= step:
                        kept.append(line + "\n")
        files.write_text(path, "".join(kept))
        self.file = open(path, "a", encoding="utf-8")

    def write(self, **values) -> None:
        if self.file:
            self.file.write(json.dumps(values) + "\n")
            self.file.flush()


@contextlib.contextmanager
def averaged_weights(model: nn.Module, averaged: dict | None):
    """Run with the averaged weights, then put the trained ones back."""
    if averaged is None:
        yield
        return
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(averaged)
    try:
        yield
    finally:
        model.load_state_dict(trained)


class Run:
    """What a run is at a step: the model, its optimizers and averages, the best score, and the folder they are saved in.

    model: the one that is trained. plain: the one that is evaluated, another only where `model` is split over processes.
    """

    def __init__(
        self,
        model: nn.Module,
        cfg: TrainConfig,
        run_dir: Path,
        about: dict,
        resume: dict | None,
        plain: nn.Module,
    ):
        self.model, self.cfg, self.dir, self.about, self.plain = model, cfg, run_dir, about, plain
        self.optimizers = make_optimizers(model, cfg)
        self.averaged = (
            {name: value.clone() for name, value in model.state_dict().items()} if cfg.ema else None
        )
        self.step, self.best, self.tokens_seen, self.metrics, self.skipped = 0, math.inf, 0, {}, 0
        if resume is not None:
            if resume.get("shards") or model is not plain:
                from loop import shards  # torch.distributed.checkpoint takes two seconds to import

                resume = shards.whole_or_split(resume, run_dir, model, self.optimizers)
            model.load_state_dict(resume["weights"])
            self.averaged = resume["averaged"]
            try:
                for optimizer, state in zip(self.optimizers, resume["optimizer"], strict=True):
                    optimizer.load_state_dict(state)
            except ValueError as error:
                raise UserError(
                    f"the state of another optimizer in {run_dir / 'resume.pt'}",
                    f"{cfg.optimizer}'s",
                    f"resume with --optimizer {resume['train']['optimizer']}",
                ) from error
            self.step, self.best, self.tokens_seen, self.metrics = (
                resume[key] for key in ("step", "best", "tokens_seen", "metrics")
            )
            self.skipped = resume.get("skipped", 0)  # runs from before the flag have skipped none
        self.log = Log(run_dir / "log.jsonl", self.step)

    def content(self) -> dict:
        """A checkpoint of this step, nothing in it split; all processes must ask for it."""
        averaged = None if self.averaged is None else distributed.whole_weights(self.averaged)
        return {
            **self.about,
            "weights": distributed.whole_weights(self.model.state_dict()),
            "averaged": averaged,
            "train": flags.to_dict(self.cfg),
            "step": self.step,
            "seed": self.cfg.seed,
            "git": files.git_revision(),
            "metrics": self.metrics,
        }

    def save(self) -> None:
        """Write resume.pt, then last.pt. Of a model that is split, resume.pt only names a folder with every process's part."""
        content = self.content()
        state = {
            "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
            "best": self.best,
            "tokens_seen": self.tokens_seen,
            "skipped": self.skipped,
        }
        resume = {**content, **state}
        if self.model is not self.plain:
            from loop import shards

            resume |= shards.save(
                self.dir, self.step, self.model.state_dict(), self.averaged, state["optimizer"]
            )
        if distributed.leads():
            checkpoint.save(self.dir / "resume.pt", resume)
            checkpoint.save(self.dir / "last.pt", content)
            if any(self.dir.glob("resume_*/")):  # of earlier steps
                from loop import shards

                shards.remove_others(self.dir, resume.get("shards"))
        distributed.barrier()  # nobody ends before all is on disk

    def skip(self, step: int, what: str, rows: str) -> None:
        """Leave out a step that has no finite loss or gradient. Raises UserError if that was done often enough."""
        if self.skipped >= self.cfg.skip_nonfinite:
            before = f", after {self.skipped} that were left out," if self.skipped else ""
            raise UserError(
                f"{what} at step {step + 1}{before} from {rows}",
                "a finite one",
                f"look at these rows, lower --learning_rate, or add --skip_nonfinite; the last good state is in {self.dir / 'resume.pt'}",
            )
        self.skipped += 1
        self.log.write(step=step + 1, skipped=self.skipped, reason=f"{what} from {rows}")
        if distributed.leads():
            tqdm.write(
                f"step {step + 1:6d}  left out ({self.skipped} of {self.cfg.skip_nonfinite}): {what} from {rows}",
                file=sys.stderr,
            )

    def average(self) -> None:
        """Move the averaged weights towards the trained ones; early on faster, since they started from noise."""
        if self.averaged is not None:
            decay = min(self.cfg.ema, (1 + self.step) / (10 + self.step))
            now = self.model.state_dict()
            smooth = [name for name, value in self.averaged.items() if value.is_floating_point()]
            parts = (
                [distributed.part(weights[name]) for name in smooth]
                for weights in (self.averaged, now)
            )
            torch._foreach_lerp_(*parts, 1 - decay)
            for name in self.averaged.keys() - set(smooth):  # counters
                self.averaged[name].copy_(now[name])

    def evaluate(self, eval_fn: Callable, preview_fn: Callable | None, autocast) -> None:
        """Score the averaged weights; keep them as best.pt if they are."""
        self.plain.eval()
        with self.evaluated_weights(), autocast():
            self.metrics = {
                name: float(value) for name, value in eval_fn(self.plain).items()
            }  # numpy's floats are no plain values
            preview = preview_fn(self.plain) if preview_fn and distributed.leads() else None
        self.plain.train()
        self.metrics = distributed.leaders(self.metrics)
        self.log.write(
            step=self.step, **{f"val_{name}": value for name, value in self.metrics.items()}
        )
        if distributed.leads():
            tqdm.write(
                f"step {self.step:6d}  "
                + "  ".join(f"val_{name} {value:.4f}" for name, value in self.metrics.items()),
                file=sys.stderr,
            )
        if preview:
            files.write_text(self.dir / "samples" / f"step_{self.step:06d}.txt", preview + "\n")
        score = next(iter(self.metrics.values()))
        if score < self.best:
            self.best = score
            content = self.content()
            if distributed.leads():
                checkpoint.save(self.dir / "best.pt", content)

    @contextlib.contextmanager
    def evaluated_weights(self):
        """Run with the averaged weights in `plain`, which is on the device only meanwhile if `model` is another."""
        if self.model is self.plain:
            with averaged_weights(self.model, self.averaged):
                yield
            return
        self.plain.load_state_dict(
            distributed.whole_weights(self.averaged or self.model.state_dict())
        )
        self.plain.to(self.model.device)
        yield
        self.plain.cpu()


def fit(
    model: nn.Module,
    loss_fn: Callable,
    batches: Callable[[int], list[dict]],
    cfg: TrainConfig,
    run_dir: Path,
    *,
    about: dict,
    eval_fn: Callable | None = None,
    preview_fn: Callable | None = None,
    resume: dict | None = None,
) -> dict:
    """Train `model` in place for cfg.max_steps steps and return the last evaluation.

    loss_fn(model, batch, rng) -> (mean loss per unit of batch["weight"], {"name": float}).
    batches(step) -> the micro-batches of one optimizer step, dicts with a float `weight` (its number of predicted
    tokens): the step's loss is their weighted mean, whatever the accumulation. Under torchrun, this process's (distributed.deal).
    about: the checkpoint's fixed part (kind, objective, model, tokenizer, statistics, data).
    eval_fn(model) -> {"name": float}; its first value decides which weights are best.pt. preview_fn(model) -> str.
    resume: the content of a resume.pt. Raises UserError on a non-finite loss or gradient beyond cfg.skip_nonfinite of them, with
    the step and the rows that it came from; the last saved state stays. A step left out changes no weight, average or count.
    Writes log.jsonl, best.pt, last.pt, resume.pt, samples/ in run_dir; with FSDP2 also resume_STEP/, named in resume.pt.
    """
    device = model.device
    dtype, reason = choose_precision(cfg.precision, device)
    autocast = lambda: torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    distributed.say(
        f"precision: {dtype} ({reason}); compile: {cfg.compile}; parameters: {model.num_parameters():,}"
    )
    parallel, reason = distributed.choose_parallel(
        cfg.parallel, model.num_parameters(), cfg.compile
    )
    if parallel != "alone":
        distributed.say(f"parallel: {parallel} ({reason}) over {distributed.world()} processes")
    plain = model
    model, objective = distributed.spread(plain, loss_fn, parallel)
    run = Run(model, cfg, run_dir, about, resume, plain)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    if cfg.compile:
        model.trunk = torch.compile(model.trunk, dynamic=False)
    model.train()
    clock, seen_at_clock = time.perf_counter(), run.tokens_seen
    pause = (
        0.1 if sys.stderr.isatty() else 30.0
    )  # seconds between redraws of the bar: a log file needs few
    with (
        StopSignal() as stop,
        tqdm(
            total=cfg.max_steps,
            initial=run.step,
            unit="step",
            dynamic_ncols=True,
            mininterval=pause,
            maxinterval=pause,
            disable=not distributed.leads(),
        ) as bar,
    ):
        for step, micro_batches in prepared(batches, range(run.step, cfg.max_steps), device):
            loss, stats, norm = optimizer_step(
                objective,
                lambda objective, *given: objective(*given),
                micro_batches,
                cfg,
                step,
                run.optimizers,
                scaler,
                autocast,
            )
            good = updates(loss, norm, scaler)
            if good:
                run.average()
                run.tokens_seen += int(stats["tokens"])
            else:
                what = (
                    f"a loss of {loss}" if not math.isfinite(loss) else f"a gradient of norm {norm}"
                )
                # Split weights answer only when all processes ask alike, which rows one by one do not.
                rows = (
                    "rows not looked for"
                    if model is not plain
                    else distributed.told(
                        nonfinite_rows(model, loss_fn, micro_batches, cfg, step, autocast)
                    )
                )
                run.skip(step, what, rows)
            stats.pop("tokens")
            run.step = step + 1
            bar.update()
            last = run.step == cfg.max_steps
            if good and (run.step % cfg.log_every == 0 or last):
                rate = (run.tokens_seen - seen_at_clock) / (time.perf_counter() - clock)
                clock, seen_at_clock = time.perf_counter(), run.tokens_seen
                run.log.write(
                    step=run.step,
                    loss=loss,
                    **stats,
                    gradient_norm=norm,
                    tokens_seen=run.tokens_seen,
                    learning_rate=cfg.learning_rate * learning_rate(step, cfg),
                    tokens_per_second=round(rate),
                )
                bar.set_postfix_str(f"loss {loss:.3f}  {rate:,.0f} tokens/s", refresh=False)
            if eval_fn and (last or (cfg.eval_every and run.step % cfg.eval_every == 0)):
                run.evaluate(eval_fn, preview_fn, autocast)
                clock, seen_at_clock = time.perf_counter(), run.tokens_seen
            received = distributed.any_signal(stop.received)
            if last or received or (cfg.save_every and run.step % cfg.save_every == 0):
                run.save()
            if received and not last:
                bar.close()
                name = signal.Signals(received).name
                distributed.say(
                    f"stopped by {name} after step {run.step}, all saved; go on with --resume"
                )
                raise SystemExit(128 + received)
    if model is not plain:
        plain.load_state_dict(distributed.whole_weights(model.state_dict()))
        plain.to(device)
    return run.metrics


def prepared(
    batches: Callable[[int], list[dict]], steps: range, device: torch.device
) -> Iterator[tuple[int, list[dict]]]:
    """Each step and its micro-batches. Beside a GPU the next ones are made by a thread meanwhile: 512 captions take a core 3 ms (LOG.md)."""
    if device.type == "cpu":  # whose cores have enough to do
        yield from ((step, batches(step)) for step in steps)
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(batches, steps.start) if steps else None
        for step in steps:
            ready = coming.result()
            if step + 1 < steps.stop:
                coming = thread.submit(batches, step + 1)
            yield step, ready


def updates(loss: float, norm: float, scaler) -> bool:
    """Whether a step may change the weights: a gradient that is not finite would spoil them all. fp16's scaler sees to its own."""
    return math.isfinite(loss) and (scaler.is_enabled() or math.isfinite(norm))


def row_of(batch: dict, row: int, rows: int) -> dict:
    """One row of a micro-batch. What has fewer entries than rows, such as the images of captions, is shared by neighbours."""

    def part(value):
        if (
            not hasattr(value, "__len__")
            or isinstance(value, str)
            or not len(value)
            or rows % len(value)
        ):
            return value
        at = row // (rows // len(value))
        return value[at : at + 1]

    return {name: part(value) for name, value in batch.items()}


def nonfinite_rows(model, loss_fn, micro_batches, cfg, step, autocast) -> str:
    """In words, which rows of a step have no finite loss alone (micro-batches and rows are counted from 0): a call a row, of a step
    that failed only. Masks are drawn anew for a row alone, so a loss that hangs on them may not be found again."""
    found = []
    for number, batch in enumerate(micro_batches):
        rows, wrong = len(batch["tokens"]), []
        for row in range(rows):
            with torch.no_grad(), autocast():
                value = loss_fn(model, row_of(batch, row, rows), step_generator(cfg.seed, step))[
                    0
                ].item()
            if not math.isfinite(value):
                wrong.append(row)
        if wrong:
            names = (
                "all its rows"
                if len(wrong) == rows
                else f"row{'s' * (len(wrong) > 1)} " + ", ".join(map(str, wrong))
            )
            data = (
                f" (rows {', '.join(str(batch['rows'][row]) for row in wrong[:10])} of the data)"
                if "rows" in batch
                else ""
            )
            found.append(f"micro-batch {batch.get('number', number)}, {names}{data}")
    return "; ".join(found) or "no row of it alone"


def optimizer_step(
    model, loss_fn, micro_batches, cfg, step, optimizers, scaler, autocast
) -> tuple[float, dict, float]:
    """One update. Returns the loss, its statistics as weighted means (and `tokens`), and the gradient norm: all processes' together.

    micro_batches: this process's. A `number` in each, its place in the step, chooses its generator.
    """
    share_of_peak = learning_rate(step, cfg)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = cfg.learning_rate * share_of_peak
    total = float(distributed.total([sum(batch["weight"] for batch in micro_batches)])[0])
    sums = {"loss": 0.0}
    for place, batch in enumerate(micro_batches):
        number = batch.get("number", place)
        stream = number + 1 if number else 0  # 1 is the noise levels'
        torch.manual_seed(dropout_seed(cfg.seed, step, stream))
        part = batch["weight"] / total
        with distributed.gradients_of(model, last=place == len(micro_batches) - 1):
            with autocast():
                value, stats = loss_fn(model, batch, step_generator(cfg.seed, step, stream))
            scaler.scale(
                value * (part * distributed.world())
            ).backward()  # DDP and FSDP2 divide by the number of processes
        for name, figure in {"loss": value.item(), **stats}.items():
            sums[name] = sums.get(name, 0.0) + figure * part
    means = dict(zip(sums, distributed.total(list(sums.values())).tolist(), strict=True))
    loss, means = means.pop("loss"), {"tokens": total, **means}
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    norm = distributed.whole(torch.nn.utils.get_total_norm([weight.grad for weight in weights]))
    torch.nn.utils.clip_grads_with_norm_(weights, cfg.clip or math.inf, norm)
    norm = norm.item()
    if updates(loss, norm, scaler):
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
    return loss, means, norm
