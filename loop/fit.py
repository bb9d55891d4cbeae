"""fit(): the one training loop. The loss, the data and the previews are passed in.

The loop owns what is the same for every task: steps, learning rate, accumulation, clipping,
averaged weights, precision, compilation, the stop on a non-finite loss, log.jsonl, saving,
resuming, and a clean stop on SIGTERM. A script passes
    loss_fn(model, batch, rng) -> (mean loss per unit of batch["weight"], {"name": figure to log})
    batches(step) -> this process's micro-batches of a step (distributed.deal): dicts with a float
        `weight`, the number of predicted tokens. The step's loss is their weighted mean
    eval_fn(model) -> {"name": figure}; its first figure decides which weights are best.pt
    preview_fn(model) -> a text to read
and finds log.jsonl, best.pt, last.pt, resume.pt and samples/ in its run folder. Under FSDP2 there
is also a folder resume_STEP/.

The step decides everything: the batch and the randomness of step s are functions of (seed, s)
alone. So a run that was killed and resumed equals a straight run bit for bit. Under torchrun the
micro-batches of a step are dealt to the processes (distributed.py); the number of processes does
not change what a step computes.
"""

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from base.config import TrainConfig
from base.randomness import dropout_seed
from loop import distributed, estimate, progress
from loop.batches import MicroBatches, step_generator, stream_of
from loop.contracts import Checkpoint, EvalFn, LossFn, PreviewFn
from loop.hardware import Arithmetic, choose_precision, describe_attention
from loop.optim import learning_rate, make_optimizers, set_learning_rate
from loop.run import Run, StopSignal


def fit(
    model: Any,
    loss_fn: LossFn,
    batches: MicroBatches,
    cfg: TrainConfig,
    run_dir: Path,
    *,
    about: Checkpoint,
    eval_fn: EvalFn | None = None,
    preview_fn: PreviewFn | None = None,
    resume: Checkpoint | None = None,
) -> dict[str, float]:
    """Train `model` in place for cfg.max_steps steps and return the last evaluation.

    about: the checkpoint's fixed part (kind, objective, model, tokenizer, statistics, data).
    resume: the content of a resume.pt. The head of this file describes the other arguments.

    Raises UserError on a non-finite loss or gradient, with its step and rows, after
    cfg.skip_nonfinite such steps were left out. A step left out changes no weight or average.
    """
    cfg = with_steps(model, loss_fn, batches, cfg, resume)
    run, objective, arithmetic = prepare(model, loss_fn, cfg, run_dir, about, resume)
    speed, forecast = Speed(run), estimate.Forecast(model, len(run.steps_left()))
    with StopSignal() as stop, progress_bar(cfg, run.step) as bar:
        for step, micro_batches in prefetched(batches, run.steps_left(), model.device):
            rate = cfg.learning_rate * learning_rate(step, cfg)
            set_learning_rate(run.optimizers, rate)
            result = optimizer_step(objective, micro_batches, step, cfg, run.optimizers, arithmetic)
            if result.is_good:
                run.average()  # before run.step moves on: the first steps average faster
            else:
                rows = nonfinite_rows(run, loss_fn, micro_batches, step, arithmetic)
                run.skip(step, result.problem, rows)
            run.count(step, result.tokens if result.is_good else 0)
            bar.update()
            forecast.note(run.step, micro_batches)
            if result.is_good and (run.is_over or is_due(run.step, cfg.log_every)):
                log(run, result, rate, speed.measure(), bar)
            if eval_fn and (run.is_over or evaluation_is_due(run.step, cfg)):
                run.evaluate(eval_fn, preview_fn, arithmetic)
                speed.restart()  # an evaluation is no part of the training speed
            received = distributed.any_signal(stop.received)  # in whichever process it arrived
            if run.is_over or received or is_due(run.step, cfg.save_every):
                run.save()
            if run.is_over:  # also with a signal: a run at its last step ends as usual
                break
            if received:
                leave(received, run.step, bar)
    run.whole_model()
    return run.metrics


def prepare(
    model: Any,
    loss_fn: LossFn,
    cfg: TrainConfig,
    run_dir: Path,
    about: Checkpoint,
    resume: Checkpoint | None,
) -> tuple[Run, nn.Module, Arithmetic]:
    """Choose precision and parallelism, print both with their reasons, and set up the run."""
    dtype, reason = choose_precision(cfg.precision, model.device)
    arithmetic = Arithmetic(model.device, dtype)
    parameters = model.num_parameters()
    distributed.say(
        f"precision: {dtype} ({reason}); compile: {cfg.compile}; parameters: {parameters:,}"
    )
    distributed.say(f"attention: {describe_attention(model, dtype)}")
    parallel, reason = distributed.choose_parallel(cfg.parallel, parameters, cfg.compile)
    if parallel != "alone":
        distributed.say(f"parallel: {parallel} ({reason}) over {distributed.world()} processes")
    # DDP and FSDP2 come before the optimizers, which hold the weights that they leave.
    trained, objective = distributed.spread(model, loss_fn, parallel)
    run = Run(trained, cfg, run_dir, about, resume, plain=model)
    make_ready(trained, cfg)
    return run, objective, arithmetic


def make_ready(model: Any, cfg: TrainConfig) -> None:
    """Compile the blocks if the settings say so, and switch dropout on."""
    if cfg.compile:
        # Fixed shapes: the scripts pad rows so that few shapes occur.
        model.trunk = torch.compile(model.trunk, dynamic=False)
    model.train()


def with_steps(
    model: Any, loss_fn: LossFn, batches: MicroBatches, cfg: TrainConfig, resume: Checkpoint | None
) -> TrainConfig:
    """`cfg` with the number of steps that fits cfg.minutes, if these are given."""
    if not cfg.minutes:
        return cfg
    trial = trial_step(copy.deepcopy(model), loss_fn, batches, cfg)
    return estimate.fit_to_minutes(cfg, resume["step"] if resume else 0, trial)


def trial_step(
    model: Any, loss_fn: LossFn, batches: MicroBatches, cfg: TrainConfig
) -> Callable[[int], None]:
    """A function that trains `model` for the step of a number, as `fit` would."""
    dtype, _ = choose_precision(cfg.precision, model.device)
    arithmetic = Arithmetic(model.device, dtype)
    model, objective = distributed.spread(model, loss_fn, "alone")
    optimizers = make_optimizers(model, cfg)
    make_ready(model, cfg)

    def step(number: int) -> None:
        optimizer_step(objective, batches(number), number, cfg, optimizers, arithmetic)

    return step


def is_due(step: int, every: int) -> bool:
    """Whether an action is due that is done every `every` steps; 0 means never."""
    return bool(every) and step % every == 0


def evaluation_is_due(step: int, cfg: TrainConfig) -> bool:
    """Whether the weights are scored after `step`: every cfg.eval_every steps, or less and less
    often if cfg.eval_growth says so.
    """
    if not is_due(step, cfg.eval_every):
        return False
    number, mark = step // cfg.eval_every, 1.0
    # The marks 1, g, g², ... are rounded up; multiplied, they are the same on every machine.
    while cfg.eval_growth > 1 and math.ceil(mark) < number:
        mark *= cfg.eval_growth
    return cfg.eval_growth == 1 or math.ceil(mark) == number


class Speed:
    """Tokens per second since the last measurement."""

    def __init__(self, run: Run):
        self.run = run
        self.restart()

    def restart(self) -> None:
        self.clock = time.perf_counter()
        self.tokens = self.run.tokens_seen

    def measure(self) -> float:
        rate = (self.run.tokens_seen - self.tokens) / (time.perf_counter() - self.clock)
        self.restart()
        return rate


def progress_bar(cfg: TrainConfig, step: int) -> tqdm:
    """A bar of the run's steps, shown by one process."""
    pause = progress.pause()
    return tqdm(
        total=cfg.max_steps,
        initial=step,
        unit="step",
        dynamic_ncols=True,
        mininterval=pause,
        maxinterval=pause,
        disable=not distributed.leads(),
    )


def log(run: Run, result: "StepResult", rate: float, speed: float, bar: tqdm) -> None:
    """Write the figures of a step to log.jsonl, and the loss to the bar."""
    run.log.write(
        step=run.step,
        loss=result.loss,
        **result.figures,
        gradient_norm=result.gradient_norm,
        tokens_seen=run.tokens_seen,
        learning_rate=rate,
        tokens_per_second=round(speed),
    )
    # Without refresh=False the bar is drawn again for each line, which fills a log file.
    bar.set_postfix_str(f"loss {result.loss:.3f}  {speed:,.0f} tokens/s", refresh=False)


def leave(received: int, step: int, bar: tqdm) -> None:
    """End with the status that the shell expects after a signal: 128 + signal."""
    bar.close()
    name = signal.Signals(received).name
    distributed.say(f"stopped by {name} after step {step}, all saved; continue with --resume")
    raise SystemExit(128 + received)


def prefetched(
    batches: MicroBatches, steps: range, device: torch.device
) -> Iterator[tuple[int, list[dict]]]:
    """Each step and its micro-batches.

    While a GPU computes, a thread makes the next micro-batches: 512 captions take a core 3 ms
    (docs/log).
    """
    if device.type == "cpu":  # the cores are busy with the step itself
        for step in steps:
            yield step, batches(step)
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(batches, steps.start) if steps else None
        for step in steps:
            assert coming is not None
            ready = coming.result()
            if step + 1 < steps.stop:
                coming = thread.submit(batches, step + 1)
            yield step, ready


class StepResult(NamedTuple):
    """What one optimizer step measured, over all processes."""

    loss: float
    figures: dict[str, float]  # weighted means of what the loss reports
    gradient_norm: float  # before clipping
    tokens: float  # the sum of the micro-batches' weights
    is_good: bool  # whether the step changed the weights

    @property
    def problem(self) -> str:
        """What is not finite, in words."""
        if not math.isfinite(self.loss):
            return f"a loss of {self.loss}"
        return f"a gradient of norm {self.gradient_norm}"


def optimizer_step(
    objective: nn.Module,
    micro_batches: list[dict],
    step: int,
    cfg: TrainConfig,
    optimizers: list[torch.optim.Optimizer],
    arithmetic: Arithmetic,
) -> StepResult:
    """One update of the weights of `objective`, at the learning rate that its optimizers have.

    objective(batch, rng) -> (mean loss, figures), such as `distributed.Objective`. micro_batches:
    this process's. A `number` in each, its place in the step, chooses its generator.
    """
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)  # None: weights without a gradient are left alone
    tokens, means = forward_backward(objective, micro_batches, step, cfg, arithmetic)
    loss = means.pop("loss")
    scaler = arithmetic.scaler
    for optimizer in optimizers:
        scaler.unscale_(optimizer)  # clipping needs the gradients' true size
    norm = clip_gradients(objective, cfg.clip)
    # A gradient that is not finite would spoil all weights. float16's scaler skips its own.
    is_good = math.isfinite(loss) and (scaler.is_enabled() or math.isfinite(norm))
    if is_good:
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
    return StepResult(loss, means, norm, tokens, is_good)


def forward_backward(
    objective: nn.Module,
    micro_batches: list[dict],
    step: int,
    cfg: TrainConfig,
    arithmetic: Arithmetic,
) -> tuple[float, dict[str, float]]:
    """Add up the gradients of a step's micro-batches: the gradient of their weighted mean loss.

    Returns the sum of the weights, and the weighted means of the loss and its figures, over all
    processes.
    """
    # All processes divide by the same sum, so a token weighs the same wherever it was dealt.
    tokens = float(distributed.total([sum(batch["weight"] for batch in micro_batches)])[0])
    sums = {"loss": 0.0}
    for index, batch in enumerate(micro_batches):
        stream = stream_of(batch.get("number", index))
        # Dropout knows no generator but torch's global generator.
        torch.manual_seed(dropout_seed(cfg.seed, step, stream))
        share = batch["weight"] / tokens
        is_last = index == len(micro_batches) - 1
        with distributed.gradients_of(objective, is_last):
            with arithmetic.autocast():
                loss, figures = objective(batch, step_generator(cfg.seed, step, stream))
            # DDP and FSDP2 divide by the number of processes; the factor world() undoes it.
            arithmetic.scaler.scale(loss * (share * distributed.world())).backward()
        for name, figure in {"loss": loss.item(), **figures}.items():
            sums[name] = sums.get(name, 0.0) + figure * share
    means = distributed.total(list(sums.values())).tolist()
    return tokens, dict(zip(sums, means, strict=True))


def clip_gradients(objective: nn.Module, largest: float) -> float:
    """Scale all gradients to a joint norm of at most `largest` (0: any); returns their norm."""
    weights = [weight for weight in objective.parameters() if weight.grad is not None]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    # Computed without clipping too, because the log reports the norm.
    norm = distributed.whole(torch.nn.utils.get_total_norm(gradients))
    torch.nn.utils.clip_grads_with_norm_(weights, largest or math.inf, norm)
    return norm.item()


def row_of(batch: dict, row: int, rows: int) -> dict:
    """One of the `rows` rows of a micro-batch.

    An entry shorter than the rows, such as the features of captions, is shared by neighbouring
    rows.
    """
    single = {}
    for name, value in batch.items():
        single[name] = value
        if not isinstance(value, Sized) or isinstance(value, str):
            continue
        count: int = len(value)
        if count and rows % count == 0:
            index = row // (rows // count)
            single[name] = value[index : index + 1]  # type: ignore[index]
    return single


def nonfinite_rows(
    run: Run, loss_fn: LossFn, micro_batches: list[dict], step: int, arithmetic: Arithmetic
) -> str:
    """In words, which rows of a failed step have no finite loss alone, over all processes.

    Micro-batches and rows are counted from 0. It takes a call per row. A row alone draws other
    masks, so a loss that depends on its masks may not be found again.
    """
    # Split weights answer only if all processes ask for the same rows. Single rows differ.
    if run.is_split:
        return "rows not looked for"
    problems = []
    for index, batch in enumerate(micro_batches):
        rows = len(batch["tokens"])
        wrong = []
        for row in range(rows):
            rng = step_generator(run.cfg.seed, step)
            with torch.no_grad(), arithmetic.autocast():
                loss = loss_fn(run.model, row_of(batch, row, rows), rng)[0].item()
            if not math.isfinite(loss):
                wrong.append(row)
        if wrong:
            number = batch.get("number", index)
            problems.append(f"micro-batch {number}, {describe_rows(batch, wrong, rows)}")
    return distributed.told("; ".join(problems) or "no row of it alone")


def describe_rows(batch: dict, wrong: list[int], rows: int) -> str:
    """The wrong rows of a micro-batch in words, and the first ten of their numbers in the data."""
    text = "all its rows"
    if len(wrong) < rows:
        text = f"row{'s' if len(wrong) > 1 else ''} " + ", ".join(map(str, wrong))
    if "rows" in batch:
        text += f" (rows {', '.join(str(batch['rows'][row]) for row in wrong[:10])} of the data)"
    return text
