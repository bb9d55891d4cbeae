"""Run a bundle's graphs with ONNX Runtime: pictures or templates in, texts out, no torch (floor 0: numpy; onnxruntime when it is used).

    encoder -> condition -> loop    on CPUs and CUDA: three calls a batch of pictures, whatever the number of steps
    encoder -> condition -> step…   for TensorRT, which takes no Loop with doubles: `unmask` drives it, as samplers.sample does
    next, next, …                   the autoregressive twin with its key-value cache

The uniform numbers are torch's own (both are MT19937), so the same seed draws what generate.py and generate_caption.py draw.
"""

import re
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from base import bundle
from base.config import GROUPS, SampleConfig
from base.files import UserError
from base.images import open_image, resize_crop
from base.randomness import row_uniforms
from base.templates import blank_rows
from base.tokenizer import Tokenizer

ORDERS = (
    "confidence",
    "left_to_right",
    "first_hitting",
    "entropy_bound",
)  # the loop graph's input `order` is a place in this list
SAMPLERS = (*ORDERS, "threshold")  # threshold is confidence at its own pace
FIRST_SAMPLERS = (
    "confidence",
    "left_to_right",
    "first_hitting",
    "threshold",
)  # of bundles that do not say which they know
NEVER = 2.0  # a threshold that no probability reaches
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
ELSEWHERE = {
    "cuda": "install onnxruntime-gpu for this machine (docs/edge.md), or use --provider cpu",
    "tensorrt": "install an onnxruntime-gpu with TensorRT (docs/edge.md), or use --provider cpu",
    "cpu": "install onnxruntime again",
}


@dataclass
class Written:
    """ids with the special ones; the call that revealed each (0: given); its probability (1: given); calls; the text."""

    ids: list[int]
    step: list[int]
    probability: list[float]
    calls: int
    text: str


def open_graph(
    path,
    provider: str = "cpu",
    threads: int = 0,
    cache: Path | None = None,
    build: str | None = None,
    low_memory: bool = False,
):
    """An ONNX Runtime session. Raises UserError if the provider is not there or does not take the graph, or the graph cannot be read.

    build: the bundle that the graph must say it belongs to. low_memory: no second copy of the weights in an order that products
    like (LOG.md has what it saves and costs). Silent fall-back to the CPU is the commonest trap of this runtime.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    there = [
        name for name, long in PROVIDERS.items() if long in onnxruntime.get_available_providers()
    ]
    if provider not in there:
        raise UserError(
            f"--provider {provider}, which this onnxruntime lacks",
            " or ".join(there),
            ELSEWHERE.get(provider, "choose one of these"),
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if low_memory:
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    wanted: list = [PROVIDERS[provider]]
    if provider == "tensorrt":
        cache.mkdir(parents=True, exist_ok=True)
        # fp16 stays off: the precision is in the graph. An engine is good for one graph on one machine, so the cache's name has both.
        wanted = [
            (
                PROVIDERS["tensorrt"],
                {
                    "trt_engine_cache_enable": True,
                    "trt_engine_cache_path": str(cache),
                    "trt_timing_cache_enable": True,
                    "trt_timing_cache_path": str(cache),
                    "trt_fp16_enable": False,
                },
            ),
            PROVIDERS["cuda"],
        ]
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=wanted + ([PROVIDERS["cpu"]] if provider != "cpu" else [])
        )
    except Exception as error:  # onnxruntime's own exceptions share no base class
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}, which onnxruntime {onnxruntime.__version__} does not run ({message[:200]})",
            "a graph that it knows",
            "install the version in requirements-jetson.txt, or export again",
        ) from error
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise UserError(
            f"--provider {provider}, in whose place onnxruntime took {session.get_providers()[0]}",
            provider,
            ELSEWHERE[provider],
        )
    found = session.get_modelmeta().custom_metadata_map.get("build")
    if build is not None and found != build:
        raise UserError(
            f"{path} of another bundle ({found})", f"a graph of the bundle {build}", bundle.AGAIN
        )
    return session


def schedule_table(settings: SampleConfig, length: int) -> np.ndarray:
    """(length + 1, steps) int32: row n says how many of n blanks are still masked after each step, as samplers.paced has it."""
    t = 1 - (np.arange(settings.steps) + 1) / settings.steps
    alpha = {"linear": 1 - t, "cosine": 1 - np.cos(np.pi / 2 * (1 - t)), "polynomial": 1 - t**2}[
        settings.schedule
    ]
    table = np.round(np.arange(length + 1)[:, None] * (1 - alpha)).astype(np.int32)
    table[:, -1] = 0
    return table


def numbers_needed(settings: SampleConfig, table: np.ndarray, total: int) -> int:
    """How many uniform numbers a row of `total` blanks takes at most."""
    if settings.sampler != "first_hitting":
        return max(1, total)
    return int(
        2 * total + table[total].sum()
    )  # an order for what is masked before each step, and a number a token


def loop_inputs(
    settings: SampleConfig, tokens: np.ndarray, mask: int, length: int, seed: int, first: int
) -> dict:
    """What the loop graph wants beside tokens, lengths and the condition."""
    table, total = schedule_table(settings, length), int((tokens == mask).sum(1).max())
    own = settings.sampler == "threshold"
    at_least = np.float32(
        settings.threshold
    )  # the smallest float32 that is not below the setting, so that >= means the same
    at_least = (
        at_least if float(at_least) >= settings.threshold else np.nextafter(at_least, np.float32(2))
    )
    limit = (
        settings.entropy_bound
        if settings.sampler == "entropy_bound"
        else at_least
        if own
        else NEVER
    )
    return {
        "schedule": table,
        "order": np.array([0 if own else ORDERS.index(settings.sampler)], np.int32),
        "threshold": np.array([limit], np.float32),
        "temperature": np.array([settings.temperature], np.float32),
        "noise": row_uniforms(seed, len(tokens), first, numbers_needed(settings, table, total)),
    }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def draw(logits: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
    """A token a row by the inverse of its distribution function, in float64: logits (M, V'), uniform (M,) -> (M,)."""
    if temperature == 0:
        return logits.argmax(-1)
    mass = np.exp(log_softmax(logits.astype(np.float64) / temperature)).cumsum(-1)
    return np.minimum((mass <= uniform[:, None] * mass[:, -1:]).sum(-1), logits.shape[-1] - 1)


def unmask(
    call, tokens: np.ndarray, inputs: dict, mask: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The loop graph in numpy, around call(tokens, share) -> logits (B, L, V'). inputs: from `loop_inputs`.

    The one twin of samplers.sample; parity.py holds them together, token for token.
    """
    tokens, (B, L), rows = tokens.copy(), tokens.shape, np.arange(len(tokens))[:, None]
    table, order, noise, at = inputs["schedule"], int(inputs["order"][0]), inputs["noise"], 0
    own, N, total = (
        order == 3 or inputs["threshold"][0] <= 1,
        table.shape[1],
        (tokens == mask).sum(1),
    )
    step, probability, used, cursor, calls = (
        np.zeros_like(tokens),
        np.ones((B, L), np.float32),
        np.zeros(B, int),
        np.zeros(B, int),
        0,
    )
    stream = lambda where: noise[
        rows, np.clip(cursor[:, None] + where.cumsum(1) - 1, 0, noise.shape[1] - 1)
    ]
    while (tokens == mask).any():
        masked = tokens == mask
        now = masked.sum(1)
        due = np.flatnonzero((table[total] < now[:, None]).any(0) & (np.arange(N) >= at))
        skipped = 0 if own or not len(due) else int(due[0]) - at
        at += skipped
        least = np.maximum(1 if own else 0, now - table[total, at])
        logits = call(tokens, now / np.maximum(1, total))
        log_prob = log_softmax(logits)
        sure, entropy = (
            np.exp(log_prob.max(-1)),
            -(log_prob * np.exp(log_prob)).sum(-1).astype(np.float64),
        )
        if order == 2:
            cursor = cursor + now * skipped
        score = (
            sure.astype(np.float64),
            np.broadcast_to(-np.arange(L, dtype=np.float64), (B, L)),
            stream(masked),
            -entropy,
        )[order]
        cursor = cursor + (now if order == 2 else 0)
        best = np.argsort(np.where(masked, -score, np.inf), 1, kind="stable")
        rank = np.argsort(best, 1)
        if order == 3:
            in_order = np.take_along_axis(np.where(masked, entropy, 0), best, 1)
            accepted = (
                np.take_along_axis(masked, best, 1)
                & (in_order.cumsum(1) - in_order <= inputs["threshold"][0])
            ).sum(1)
        else:
            accepted = (masked & (sure >= inputs["threshold"][0])).sum(1)
        reveal = masked & (rank < np.maximum(least, accepted)[:, None])
        token = draw(logits[reveal], stream(reveal)[reveal], float(inputs["temperature"][0]))
        used, calls = used + reveal.any(1), calls + 1
        tokens[reveal], step[reveal] = token, np.broadcast_to(used[:, None], (B, L))[reveal]
        probability[reveal] = np.exp(np.take_along_axis(log_prob[reveal], token[:, None], 1)[:, 0])
        cursor, at = cursor + reveal.sum(1), at + 1
    return tokens, step, probability, calls


def look_back(
    call,
    tokens: np.ndarray,
    step: np.ndarray,
    probability: np.ndarray,
    free: np.ndarray,
    settings: SampleConfig,
    noise: np.ndarray,
    mask: int,
) -> np.ndarray:
    """samplers.look_back in numpy, in place; returns the calls that drew something in each row (B,).

    noise: a row's uniform numbers, of which the sampler took one for each free token.
    """
    rows, total, group = (
        np.arange(len(tokens))[:, None],
        np.maximum(1, free.sum(1)),
        (free.cumsum(1) - 1) % GROUPS,
    )
    used, cursor = step.max(1), free.sum(1)
    for number in range(settings.revise * GROUPS):
        again = free & (group == number % GROUPS)
        if not again.any():
            continue
        logits = call(np.where(again, np.int32(mask), tokens), again.sum(1) / total)[again]
        place = np.clip(cursor[:, None] + again.cumsum(1) - 1, 0, noise.shape[1] - 1)
        token = draw(logits, noise[rows, place][again], settings.temperature)
        used, cursor, other = used + again.any(1), cursor + again.sum(1), token != tokens[again]
        changed = again.copy()
        changed[again] = other
        tokens[again], step[changed] = token, np.broadcast_to(used[:, None], step.shape)[changed]
        probability[changed] = np.exp(
            np.take_along_axis(log_softmax(logits[other]), token[other, None], 1)[:, 0]
        )
    return used


def peak_mib() -> float:
    """The most memory that this process has held; ru_maxrss alone would count what its parent held when it was forked."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


@dataclass
class Runner:
    """An opened bundle. for_tensorrt: use the graphs made for TensorRT (and its step-by-step driver), on whatever provider."""

    folder: Path
    provider: str = "cpu"
    threads: int = 0
    for_tensorrt: bool | None = None
    check: bool = True
    low_memory: bool = False
    seconds: dict = field(default_factory=dict)  # of the last call, by stage

    def __post_init__(self):
        self.folder = Path(self.folder)
        self.facts = bundle.read(self.folder)
        if self.check:
            bundle.check(self.folder, self.facts)
        try:
            self.settings, self.length = (
                SampleConfig(**self.facts["sampling"]),
                int(self.facts["model"]["max_length"]),
            )
            self.samplers = tuple(self.facts.get("samplers", FIRST_SAMPLERS))
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"{self.folder / 'bundle.json'} of another shape ({error})",
                "what export_onnx.py wrote",
                bundle.AGAIN,
            ) from error
        self.for_tensorrt = (
            self.provider == "tensorrt" if self.for_tensorrt is None else self.for_tensorrt
        )
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        self.sessions, self.conditioned = {}, self.facts["kind"] == "caption"

    def session(self, name: str):
        """The session of one graph, opened when it is first used."""
        if name not in self.sessions:
            path = (
                self.folder / self.facts["graphs"]["tensorrt" if self.for_tensorrt else "cpu"][name]
            )
            cache = self.folder / "engines" / f"{path.stem}-{self.facts['build']}"
            self.sessions[name] = open_graph(
                path, self.provider, self.threads, cache, self.facts["build"], self.low_memory
            )
        return self.sessions[name]

    def run(self, name: str, inputs: dict, outputs: list[str] | None = None) -> list[np.ndarray]:
        """One call of a graph; inputs that it does not have are left out."""
        session = self.session(name)
        clock = time.perf_counter()
        result = session.run(outputs, {one.name: inputs[one.name] for one in session.get_inputs()})
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - clock
        return result

    def pixels(self, source) -> np.ndarray:
        """A path, bytes or an open picture -> (S, S, 3) uint8, as the encoder's training had it."""
        about = self.facts["preprocess"]
        clock = time.perf_counter()
        image = source if hasattr(source, "resize") else open_image(source, at_least=about["size"])
        middle = time.perf_counter()
        result = resize_crop(image, about["size"], about["mode"], about["resample"], about["zoom"])
        self.seconds["decode"] = self.seconds.get("decode", 0.0) + middle - clock
        self.seconds["resize"] = self.seconds.get("resize", 0.0) + time.perf_counter() - middle
        return result

    def condition(self, images: np.ndarray) -> tuple[dict, np.ndarray]:
        """(B, S, S, 3) uint8 -> keys and values, and the lengths (B,) that the captions will have. Once a picture."""
        keys, values, lengths = self.run(
            "condition", {"features": self.run("encoder", {"image": images})[0]}
        )
        return {"keys": keys, "values": values}, lengths

    def blanks(
        self, lengths: np.ndarray, template: list[int] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of [BOS], blanks, [EOS], or of a template: (B, L) int32 and lengths (B,) int32."""
        if template is not None:
            return np.tile(np.array(template, np.int32), (len(lengths), 1)), np.full(
                len(lengths), len(template), np.int32
            )
        tokens = blank_rows(lengths, self.tokenizer, self.length if self.for_tensorrt else 0)
        return tokens.astype(np.int32), lengths.astype(np.int32)

    def fill(
        self,
        tokens: np.ndarray,
        lengths: np.ndarray,
        condition: dict,
        settings: SampleConfig,
        seed: int = 0,
        first: int = 0,
    ):
        """Fill the blanks: tokens, step, probability (B, L), and the calls that drew something in each row (B,).

        Raises UserError if the bundle's loop lacks the sampler.
        """
        if settings.sampler not in self.samplers:
            raise UserError(
                f"--sampler {settings.sampler}",
                "one that this bundle's graphs know: " + ", ".join(self.samplers),
                "choose one of these, or export again",
            )
        if settings.revise and settings.temperature and settings.sampler == "first_hitting":
            raise UserError(
                "--revise with first_hitting above temperature 0",
                "an order that takes one random number a token, as torch counts them",
                "set --temperature 0, or choose --sampler confidence",
            )
        mask, short = self.tokenizer.mask, tokens.shape[1]
        inputs, free = loop_inputs(settings, tokens, mask, self.length, seed, first), tokens == mask
        call = lambda tokens, share: self.run(
            "step",
            {"tokens": tokens, "lengths": lengths, "share": share.astype(np.float32), **condition},
            ["logits"],
        )[0]
        if self.for_tensorrt:  # engines have one length: the rest is padding that nobody attends to
            tokens, free = (
                np.pad(part, ((0, 0), (0, self.length - short)), constant_values=value)
                for part, value in ((tokens, self.tokenizer.pad), (free, False))
            )
            tokens, step, probability, _ = unmask(call, tokens, inputs, mask)
        else:
            tokens, step, probability, _ = (
                part.copy()
                for part in self.run(
                    "loop", {"tokens": tokens, "lengths": lengths, **inputs, **condition}
                )
            )
        used = step.max(1)
        if settings.revise:
            noise = row_uniforms(
                seed, len(tokens), first, max(1, (1 + settings.revise) * int(free.sum(1).max()))
            )
            used = look_back(call, tokens, step, probability, free, settings, noise, mask)
        return tokens[:, :short], step[:, :short], probability[:, :short], used

    def write(
        self,
        images: np.ndarray | None,
        settings: SampleConfig,
        *,
        template: list[int] | None = None,
        seed: int = 0,
        first: int = 0,
        rows: int = 1,
        length: int = 0,
    ) -> list[Written]:
        """Texts for pictures (B, S, S, 3) uint8, or `rows` texts without any, of `length` tokens (0: the model's longest)."""
        condition, lengths = (
            self.condition(images)
            if self.conditioned
            else ({}, np.full(rows, length or self.length, np.int32))
        )
        if self.facts["objective"] == "ar":
            longest = len(template) if template else length or self.length
            return self.left_to_right(
                len(lengths),
                condition,
                template or [self.tokenizer.bos],
                longest,
                settings.temperature,
                seed,
                first,
            )
        tokens, lengths = self.blanks(lengths, template)
        tokens, step, probability, used = self.fill(
            tokens, lengths, condition, settings, seed, first
        )
        return [
            self.written(
                *(part[row, :n].tolist() for part in (tokens, step, probability)), int(used[row])
            )
            for row, n in enumerate(lengths)
        ]

    def written(
        self, ids: list[int], step: list[int], probability: list[float], calls: int
    ) -> Written:
        text = self.tokenizer.decode(ids)
        return Written(ids, step, probability, calls, text.strip() if self.conditioned else text)

    def left_to_right(
        self,
        B: int,
        condition: dict,
        prompt: list[int],
        longest: int,
        temperature: float,
        seed: int,
        first: int,
    ) -> list[Written]:
        """The twin's texts, of at most `longest` tokens: as autoregressive.sample writes them."""
        model, noise = self.facts["model"], row_uniforms(seed, B, first, longest)
        shape = (
            B,
            model["layers"],
            model["heads"],
            self.length,
            model["d_model"] // model["heads"],
        )
        past = {
            "past_keys": np.zeros(shape, np.float32),
            "past_values": np.zeros(shape, np.float32),
        }
        tokens, probability = (
            np.full((B, longest), self.tokenizer.pad, np.int32),
            np.ones((B, longest), np.float32),
        )
        words = (
            prompt[: prompt.index(self.tokenizer.mask)] if self.tokenizer.mask in prompt else prompt
        )
        if any(id not in (self.tokenizer.mask, self.tokenizer.eos) for id in prompt[len(words) :]):
            raise UserError(
                "a text with words behind a blank",
                "blanks at the end only: this bundle is an autoregressive twin's",
                "use a denoiser's bundle to fill the middle",
            )
        prompt = words
        tokens[:, : len(prompt)] = prompt
        done = np.zeros(B, bool)
        for place in range(longest - 1):
            logits, past["past_keys"], past["past_values"] = self.run(
                "next",
                {
                    "token": tokens[:, place : place + 1],
                    "position": np.array([place], np.int32),
                    **past,
                    **condition,
                },
            )
            if place + 1 < len(prompt):
                continue
            token = draw(logits, noise[:, place + 1 - len(prompt)], temperature)
            tokens[:, place + 1] = np.where(done, self.tokenizer.pad, token)
            probability[:, place + 1] = np.where(
                done, 1, np.exp(np.take_along_axis(log_softmax(logits), token[:, None], 1)[:, 0])
            )
            done |= token == self.tokenizer.eos
            if done.all():
                break
        sizes = (tokens != self.tokenizer.pad).sum(1)
        step = np.maximum(0, np.arange(longest) - len(prompt) + 1)
        return [
            self.written(
                tokens[row, :n].tolist(),
                step[:n].tolist(),
                probability[row, :n].tolist(),
                int(step[:n].max(initial=0)),
            )
            for row, n in enumerate(sizes)
        ]
