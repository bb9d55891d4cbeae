"""Run a bundle's graphs with ONNX Runtime: images or templates in, texts out, no torch.

    encoder -> condition -> loop    CPUs and CUDA: three calls per batch, for any number of steps
    encoder -> condition -> step …  TensorRT, which takes no Loop with doubles: decoding.unmask
                                    calls the step graph once per step
    next, next, …                   the autoregressive twin with its key-value cache

The same seed writes the same texts as generate.py and generate_caption.py, because the uniform
numbers are torch's own (base/randomness.py).
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from base import adapter_inputs, bundle, decoding, speculation, system
from base.config import SampleConfig
from base.files import UserError
from base.images import open_image, resize_crop
from base.randomness import row_uniforms
from base.templates import blank_rows
from base.tokenizer import Tokenizer

# What bundles know that do not say which samplers they know.
FIRST_SAMPLERS = ("confidence", "left_to_right", "first_hitting", "threshold")
# Share of the golden texts that must come out equal, where a bundle does not say it. Another
# machine's logits differ in their last digits: a near tie may fall the other way, a draw more
# often.
USUAL_TEXTS = 0.9
USUAL_DRAWS = 0.75


@dataclass
class Written:
    """A finished text.

    ids: with the special ones. step: the call that revealed each id, 0 if it was given.
    probability: of each id, 1 if it was given. calls: the calls that wrote something. text: the ids
    as text.
    """

    ids: list[int]
    step: list[int]
    probability: list[float]
    calls: int
    text: str


@dataclass
class Runner:
    """An opened bundle. Raises UserError if it is damaged, or lacks a graph that a call needs.

    check: hold every file to its checksum. for_tensorrt: use the graphs made for TensorRT and their
    driver, on whatever provider; None: where the provider is TensorRT. seconds: of the last call,
    by stage. adapter: a name that the bundle knows; None: the base.
    """

    folder: Path
    provider: str = "cpu"
    threads: int = 0
    for_tensorrt: bool | None = None
    check: bool = True
    low_memory: bool = False
    adapter: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self.folder = Path(self.folder)
        self.facts = bundle.read(self.folder)
        # A graph with a zeroed block of weights loads, runs, and writes wrong texts.
        if self.check:
            bundle.check(self.folder, self.facts)
        if self.facts["kind"] == "policy":
            raise UserError(
                f"{self.folder}, a bundle of a policy",
                "a captioner's or a text model's",
                "let a policy act with run_policy.py --bundle",
            )
        try:
            self.settings = SampleConfig(**self.facts["sampling"])
            self.length = int(self.facts["model"]["max_length"])
            self.samplers = tuple(self.facts.get("samplers", FIRST_SAMPLERS))
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"{self.folder / 'bundle.json'} of another shape ({error})",
                "what export_onnx.py wrote",
                bundle.AGAIN,
            ) from error
        if self.for_tensorrt is None:
            self.for_tensorrt = self.provider == "tensorrt"
        self.choose(self.adapter)
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        self.sessions: dict = {}
        self.conditioned = self.facts["kind"] == "caption"

    def session(self, name: str):
        """The session of one graph, opened when it is first used."""
        # A graph that no call needs takes no memory.
        if name not in self.sessions:
            path = self.folder / self.graph_file(name)
            build = self.facts["build"]
            cache = self.folder / "engines" / f"{path.stem}-{build}"  # one graph on one machine
            self.sessions[name] = bundle.open_graph(
                path, self.provider, self.threads, cache, build, self.low_memory
            )
        return self.sessions[name]

    def choose(self, adapter: str | None) -> None:
        """Write with this adapter from now on. Raises UserError if the bundle lacks it."""
        self.factors = adapter_inputs.load(self.folder, self.facts, adapter)
        self.adapter = adapter

    def graph_file(self, name: str) -> str:
        """The file of a graph. Raises UserError if the bundle was exported without it."""
        kind = "tensorrt" if self.for_tensorrt else "cpu"
        graphs = self.facts["graphs"].get(kind, {})
        if name not in graphs:
            raise UserError(
                f"a bundle without the graph {name!r} for {kind}",
                "one that was exported with it",
                "drop --revise, --speculate and --provider tensorrt, or export without --compact",
            )
        return graphs[name]

    def run(self, name: str, inputs: dict, outputs: list[str] | None = None) -> list[np.ndarray]:
        """One call of a graph. Inputs that the graph does not have are left out."""
        session = self.session(name)
        adapter_inputs.check_fits(session.get_inputs(), self.factors, self.graph_file(name))
        given = {**self.factors, **inputs}
        # onnxruntime refuses an input that the graph does not have.
        wanted = {node.name: given[node.name] for node in session.get_inputs()}
        clock = time.perf_counter()
        result = session.run(outputs, wanted)
        self.count_time(name, time.perf_counter() - clock)
        return result

    def count_time(self, stage: str, seconds: float) -> None:
        """Add to the seconds of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def pixels(self, source) -> np.ndarray:
        """A path, bytes or an open image -> (S, S, 3) uint8, as the encoder's training had it."""
        about = self.facts["preprocess"]
        clock = time.perf_counter()
        # A frame of a camera is an image already.
        image = source if hasattr(source, "resize") else open_image(source, at_least=about["size"])
        decoded = time.perf_counter()
        result = resize_crop(image, about["size"], about["mode"], about["resample"], about["zoom"])
        self.count_time("decode", decoded - clock)
        self.count_time("resize", time.perf_counter() - decoded)
        return result

    def condition(self, pixels: np.ndarray) -> tuple[dict, np.ndarray]:
        """Keys and values of images (B, S, S, 3) uint8, and the lengths (B,) of their captions."""
        features = self.run("encoder", {"image": pixels})[0]  # (B, P, width)
        keys, values, lengths = self.run("condition", {"features": features})
        return {"keys": keys, "values": values}, lengths

    def blanks(
        self, lengths: np.ndarray, template: list[int] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of [BOS], blanks, [EOS], or of a template: (B, L) int32 and lengths (B,) int32."""
        if template is not None:
            tokens = np.tile(np.array(template), (len(lengths), 1))
            lengths = np.full(len(lengths), len(template))
        else:
            tokens = blank_rows(lengths, self.tokenizer, self.length if self.for_tensorrt else 0)
        return tokens.astype(np.int32), lengths.astype(np.int32)

    def check_sampler(self, settings: SampleConfig) -> None:
        """Raise UserError if the bundle's graphs cannot follow these settings."""
        if settings.sampler not in self.samplers:
            raise UserError(
                f"--sampler {settings.sampler}",
                "one that this bundle's graphs know: " + ", ".join(self.samplers),
                "choose one of these, or export again",
            )
        uncounted = settings.sampler == "first_hitting" or settings.speculate
        if settings.revise and settings.temperature and uncounted:
            raise UserError(
                "--revise with first_hitting or --speculate above temperature 0",
                "an order that takes one random number per token, as torch counts them",
                "set --temperature 0, or choose --sampler confidence without --speculate",
            )

    def stepper(self, lengths: np.ndarray, condition: dict) -> decoding.Call:
        """The step graph as a function of tokens and share, for these B rows.

        Speculation calls it with n·B rows: n neighbours share the length and the image of a row.
        """
        repeated = {1: {"lengths": lengths, **condition}}

        def call(tokens: np.ndarray, share: np.ndarray) -> np.ndarray:
            n = len(tokens) // len(lengths)
            if n not in repeated:
                repeated[n] = {name: np.repeat(what, n, 0) for name, what in repeated[1].items()}
            state = {"tokens": tokens, "share": share.astype(np.float32), **repeated[n]}
            return self.run("step", state, ["logits"])[0]

        return call

    def fill(
        self,
        tokens: np.ndarray,
        lengths: np.ndarray,
        condition: dict,
        settings: SampleConfig,
        seed: int = 0,
        first: int = 0,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Fill the blanks of tokens (B, L) with lengths (B,).

        Returns tokens, step and probability (B, L), and the calls that wrote something in each row
        (B,). Raises UserError if the bundle's loop lacks the sampler.
        """
        self.check_sampler(settings)
        mask = self.tokenizer.mask
        width = tokens.shape[1]
        free = tokens == mask
        call = self.stepper(lengths, condition)
        inputs = decoding.loop_inputs(settings, tokens, mask, self.length, seed, first)
        if self.for_tensorrt:
            # An engine has one length. The rest is padding, which the model does not attend to.
            beyond = ((0, 0), (0, self.length - width))
            tokens = np.pad(tokens, beyond, constant_values=self.tokenizer.pad)
            free = np.pad(free, beyond)
        if settings.speculate:
            tokens, step, probability, _ = speculation.speculate(
                call, tokens, settings, mask, seed, first
            )
        elif self.for_tensorrt:
            tokens, step, probability, _ = decoding.unmask(call, tokens, inputs, mask)
        else:
            state = {"tokens": tokens, "lengths": lengths, **inputs, **condition}
            # The session's own arrays may not be written, so look_back gets copies.
            results = [array.copy() for array in self.run("loop", state)]
            tokens, step, probability, _ = results
        used = step.max(1)
        if settings.revise:
            # The sampler takes a number per blank, and each round of looking back takes another.
            count = max(1, (1 + settings.revise) * int(free.sum(1).max()))
            noise = row_uniforms(seed, len(tokens), first, count)
            used = decoding.look_back(call, tokens, step, probability, free, settings, noise, mask)
        return tokens[:, :width], step[:, :width], probability[:, :width], used

    def write(
        self,
        pixels: np.ndarray | None,
        settings: SampleConfig,
        *,
        template: list[int] | None = None,
        seed: int = 0,
        first: int = 0,
        rows: int = 1,
        length: int = 0,
    ) -> list[Written]:
        """Captions of images (B, S, S, 3) uint8, or `rows` texts of a model without images.

        template: the row of ids to fill, the same for all. length: tokens of a text without a
        template, 0: the model's longest. first: the number of the first text; with the seed it
        decides the draws.
        """
        if pixels is not None:
            condition, lengths = self.condition(pixels)
        else:
            condition, lengths = {}, np.full(rows, length or self.length, np.int32)
        if self.facts["objective"] == "ar":
            prompt = template or [self.tokenizer.bos]
            longest = len(template) if template else length or self.length
            noise = row_uniforms(seed, len(lengths), first, longest)
            return self.left_to_right(condition, prompt, noise, settings.temperature)
        tokens, lengths = self.blanks(lengths, template)
        tokens, step, probability, used = self.fill(
            tokens, lengths, condition, settings, seed, first
        )
        texts = []
        for row, n in enumerate(lengths):
            ids, steps = tokens[row, :n].tolist(), step[row, :n].tolist()
            calls = int(used[row])
            texts.append(self.written(ids, steps, probability[row, :n].tolist(), calls))
        return texts

    def written(
        self, ids: list[int], step: list[int], probability: list[float], calls: int
    ) -> Written:
        """A finished text from its ids. A caption has no space at its ends."""
        text = self.tokenizer.decode(ids)
        return Written(ids, step, probability, calls, text.strip() if self.conditioned else text)

    def left_to_right(
        self, condition: dict, prompt: list[int], noise: np.ndarray, temperature: float
    ) -> list[Written]:
        """The twin's texts. noise: (B, L), L the longest text in tokens.

        prompt: given ids, then blanks to the end. Raises UserError if words follow a blank.
        """
        mask, end = self.tokenizer.mask, self.tokenizer.eos
        given = prompt[: prompt.index(mask)] if mask in prompt else prompt
        # A causal model never sees what stands behind a blank.
        if any(id not in (mask, end) for id in prompt[len(given) :]):
            raise UserError(
                "a text with words behind a blank",
                "blanks at the end only: this bundle is an autoregressive twin's",
                "use a denoiser's bundle to fill the middle",
            )
        model = self.facts["model"]
        head_width = model["d_model"] // model["heads"]
        # The past has its full length from the start, so no step changes a shape.
        shape = (len(noise), model["layers"], model["heads"], self.length, head_width)
        past = {name: np.zeros(shape, np.float32) for name in ("past_keys", "past_values")}

        def call(token: np.ndarray, position: int) -> np.ndarray:
            state = {"token": token, "position": np.array([position], np.int32)}
            outputs = self.run("next", {**state, **past, **condition})
            logits, past["past_keys"], past["past_values"] = outputs
            return logits

        tokens, probability = decoding.left_to_right(
            call, given, noise, temperature, end, self.tokenizer.pad
        )
        step = np.maximum(0, np.arange(tokens.shape[1]) - len(given) + 1)
        texts = []
        for row, n in enumerate((tokens != self.tokenizer.pad).sum(1)):
            ids, steps = tokens[row, :n].tolist(), step[:n].tolist()
            texts.append(self.written(ids, steps, probability[row, :n].tolist(), max(steps)))
        return texts


def decodes_alike(runner: Runner, golden: dict) -> bool:
    """Whether this machine decodes and resizes the golden image as the exporting machine did."""
    # astype(int): differences of uint8 would wrap around.
    pixels = runner.pixels(golden["picture"].tobytes()).astype(int)
    difference = int(np.abs(pixels - golden["images"][0]).max())
    print(f"decode and resize: largest difference {difference} of 255")
    return difference <= 2  # Pillow's decoders and resizers may differ by a level between releases


def golden_texts(runner: Runner, golden: dict, settings: SampleConfig, rows: int) -> list:
    """The ids that this machine writes for the golden inputs."""
    if "tokens" in golden:
        settings.steps = min(settings.steps, 16)
        filled = runner.fill(golden["tokens"], golden["lengths"], {}, settings)[0]
        return [row[:n].tolist() for row, n in zip(filled, golden["lengths"], strict=True)]
    length = min(64, runner.length)
    texts = runner.write(golden.get("images"), settings, rows=rows, length=length)
    return [text.ids for text in texts]


def writes_alike(runner: Runner, golden: dict, name: str, changes: dict) -> bool:
    """Whether enough texts equal the trained model's; changes: to the settings it ships with."""
    settings = SampleConfig(**{**runner.facts["sampling"], **changes})
    drawn = bool(settings.temperature)
    name = adapter_inputs.golden_name(name, runner.adapter)
    expected = golden[name]
    texts = golden_texts(runner, golden, settings, len(expected))
    same = 0
    for ids, row in zip(texts, expected, strict=True):
        same += ids == row[: len(ids)].tolist() and runner.tokenizer.mask not in ids
    usual = USUAL_DRAWS if drawn else USUAL_TEXTS
    limit = runner.facts["tolerances"].get("drawn" if drawn else "texts", usual)
    print(
        f"golden, {name.replace('_', ' ')}: {same} of {len(expected)} equal to the trained "
        "model's, token for token",
        end="",
    )
    if limit is None:  # the export's gate does not judge these texts either
        print(" (not judged: a draw near a boundary falls the other way)")
        return True
    print()
    return same >= min(limit, usual) * len(expected)


def self_test(runner: Runner) -> int:
    """Compare with the golden outputs, measure speed and memory; 1 if too few texts are equal.

    The checksums were right, or opening the bundle had failed.
    """
    golden = bundle.golden(runner.folder)
    print(f"files: {len(runner.facts['files'])} as exported")
    noisy = {"sampler": "confidence", "steps": 8, "temperature": 0.8}
    good = "picture" not in golden or decodes_alike(runner, golden)
    adapters: list[str | None] = [*adapter_inputs.names(runner.facts)]
    for adapter in adapters or [None]:
        runner.choose(adapter)
        # `&=`, not `and`: every check prints its line, also after a failure.
        good &= writes_alike(runner, golden, "as_shipped", {})
        good &= writes_alike(runner, golden, "with_noise", noisy)
    pixels = golden["images"][:1] if "images" in golden else None
    seconds = []
    for _ in range(12):
        clock = time.perf_counter()
        runner.write(pixels, runner.settings)
        seconds.append(time.perf_counter() - clock)
    median = 1000 * float(np.median(seconds[2:]))  # the first two warm the caches
    print(f"speed: {median:.1f} ms per text, median of 10, batch 1, {runner.provider}")
    print(f"memory: {system.memory_text(system.peak_mib())} at most")
    print("self-test passed" if good else "self-test FAILED: do not use this bundle here")
    return 0 if good else 1
