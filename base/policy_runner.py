"""Runs a policy's bundle with ONNX Runtime: words and what is seen in, chunks out, no torch.

    words      once per order
    grounder   once per chunk: where to take, where to put; earlier observations are rows of it
    head       once per chunk: all calls of the denoiser, in a loop inside the graph
    step …     in place of `head`, for runtimes without loops: `unmask` calls it once per call

A bundle is made by export_onnx.py from a checkpoint of train_policy.py.

Shapes: F observations, T actions per chunk, A numbers per action, K bins, S numbers of the state.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from base import bundle, system, words
from base.driving import Made
from base.errors import UserError
from base.observations import Observer
from base.scaling import Offsets, Scaling
from base.tokenizer import Tokenizer

ORDERS = ("time", "confidence")  # which time steps a call reveals first
SEEN = "seen_"  # in golden.npz: before the names of what is seen
PREFIX = 2  # actions that are given in the golden case with a prefix
USUAL = {"bins": 0.9, "places": 1e-3}  # what a self-test wants at least, whatever the bundle says


class BundleMaker:
    """Chunks of a bundle. It is a `base.driving.ChunkMaker`.

    calls, order: of the head; None: as the bundle says. stepwise: drive step.onnx from here.
    check: hold every file to its checksum. Raises UserError if the folder holds no policy's
    bundle, if a file was changed, or for an order that the graphs do not know.

    about: what bundle.json says of the policy: chunk, actions, state, frames, sees, head, cameras,
    image_side, absolute, world, tasks, rate (Hz). seconds: of all calls so far, by graph.
    """

    def __init__(
        self,
        folder: Path | str,
        provider: str = "cpu",
        threads: int = 1,
        calls: int | None = None,
        order: str | None = None,
        stepwise: bool = False,
        check: bool = True,
    ):
        self.folder, self.provider, self.threads = Path(folder), provider, threads
        self.stepwise = stepwise
        self.facts = bundle.read(folder)
        need_policy(self.facts, folder)
        if check:
            bundle.check(self.folder, self.facts)
        try:
            self.about: dict = self.facts["policy"]
            self.length, self.frames = int(self.about["chunk"]), int(self.about["frames"])
            self.absolute = bool(self.about["absolute"])
            self.scaling = Scaling.from_dict(self.about["scaling"])
            offsets = self.about.get("offsets")
            self.offsets = Offsets.from_dict(offsets) if offsets else None
            self.bins = int(self.facts["model"]["actor"]["bins"])
            side, cameras = int(self.about["image_side"]), list(self.about["cameras"])
            self.observer = Observer(self.about["sees"], cameras, side, self.scaling)
            self.rate = float(self.about["rate"])
            self.calls = calls or int(self.facts["sampling"]["calls"])
            self.order = order or str(self.facts["sampling"]["order"])
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"{self.folder / 'bundle.json'} of another shape ({error!r})",
                "what export_onnx.py wrote",
                bundle.AGAIN,
            ) from error
        check_order(self.order)
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        self.sessions: dict = {}
        self.seconds: dict[str, float] = {}
        # Opened now: the first chunk of a robot must not wait for a file.
        for name in self.graphs_of_a_chunk():
            self.session(name)

    def graphs_of_a_chunk(self) -> list[str]:
        """The graphs that a chunk needs, in their order."""
        blind = self.about["sees"] == "nothing"
        writes = self.about["head"] != "l1"
        last = "step" if self.stepwise and writes else "head"
        return ["words", last] if blind else ["words", "grounder", last]

    def session(self, name: str):
        """The session of a graph."""
        if name not in self.sessions:
            graphs = self.facts["graphs"].get("cpu", {})
            if name not in graphs:
                raise UserError(
                    f"a bundle without the graph {name!r}", "a whole bundle", bundle.AGAIN
                )
            build = self.facts["build"]
            cache = self.folder / "engines" / f"{name}-{build}"
            path = self.folder / graphs[name]
            self.sessions[name] = bundle.open_graph(path, self.provider, self.threads, cache, build)
        return self.sessions[name]

    def run(self, name: str, inputs: dict) -> dict[str, np.ndarray]:
        """One call of a graph: its outputs by name. Inputs that it does not have are left out."""
        session = self.session(name)
        wanted = {node.name: inputs[node.name] for node in session.get_inputs()}
        clock = time.perf_counter()
        found = session.run(None, wanted)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - clock
        return {node.name: part for node, part in zip(session.get_outputs(), found, strict=True)}

    def begin(self, text: str, seed: int) -> list[str]:
        """Begin an episode with an order. Returns the words that the policy does not know."""
        self.understood = self.run("words", self.words_of(text))
        return words.unknown(self.tokenizer, text)

    def words_of(self, text: str) -> dict[str, np.ndarray]:
        """An order as the graphs read it."""
        ids = words.encode(self.tokenizer, [text])
        lengths = words.lengths(self.tokenizer, ids)
        return {"words": ids.astype(np.int32), "lengths": lengths.astype(np.int32)}

    def numbers(self, given: int) -> dict[str, np.ndarray]:
        """What the head is told of the calls, and of the number of actions that are given."""
        surest = int(self.order == "confidence")
        numbers = {"given": given, "calls": self.calls, "by_confidence": surest}
        return {name: np.array([value], np.int32) for name, value in numbers.items()}

    def make(self, seen: dict, earlier: Sequence[dict], prefix: np.ndarray | None) -> Made:
        """A chunk from what is seen now and was seen before, the newest first."""
        observed = [self.observer.read(each) for each in [seen, *earlier]]
        states = np.concatenate([state for _, state in observed])  # (F, S)
        places, doubt = None, {}
        found = np.zeros((len(states), 2, 3), np.float32)
        if self.about["sees"] != "nothing":
            grounded = self.ground([parts for parts, _ in observed])
            found = grounded["places"]
            places = found[0]
            doubt["naming"] = naming_entropy(grounded["scores"][0])
        told = {"places": found[:1], "state": states[:1], "order": self.understood["order"]}
        told |= {"past_places": found[None, 1:], "past_states": states[None, 1:]}
        made = self.head(told, None if prefix is None else self.written(prefix, seen))
        for name in ("nats", "entropy"):
            if name in made:
                doubt[name] = float(made[name][0])
        calls = made.get("revealed")
        actions = self.meant(made["actions"][0], seen)
        return Made(actions, places, None if calls is None else calls[0], doubt)

    def meant(self, written: np.ndarray, seen: dict) -> np.ndarray:
        """What a chunk (T, A) of the graphs means for the robot, in its [-1, 1]."""
        if self.offsets is None:
            return written
        return self.offsets.meant(written, self.scaling, seen["state"])

    def written(self, actions: np.ndarray, seen: dict) -> np.ndarray:
        """The inverse: a chunk as the graphs write it, whose numbers are bins."""
        if self.offsets is None:
            return actions
        return self.offsets.told(actions, self.scaling, seen["state"])

    def ground(self, observed: list[dict]) -> dict[str, np.ndarray]:
        """places (F, 2, 3) and scores (F, R, N) of observations, each a batch of one."""
        inputs = {}
        for name in observed[0]:
            inputs[name] = np.concatenate([parts[name] for parts in observed])
        for name, part in self.understood.items():
            inputs[name] = np.repeat(part, len(observed), 0)
        return self.run("grounder", inputs)

    def head(self, told: dict, prefix: np.ndarray | None) -> dict[str, np.ndarray]:
        """The chunk, as `head.onnx` gives it. prefix: (n, A) in [-1, 1]."""
        whole = np.zeros((1, self.length, len(self.scaling.low)), np.float32)
        given = 0 if prefix is None else len(prefix)
        if prefix is not None:
            whole[0, :given] = prefix
        if "step" in self.graphs_of_a_chunk():
            twin = self.about["head"] == "ar"
            calls = self.length if twin else self.calls
            surest = self.order == "confidence" and not twin

            def call(tokens: np.ndarray, moved: np.ndarray) -> np.ndarray:
                return self.run("step", {**told, "tokens": tokens, "moved": moved})["logits"]

            actions, revealed = unmask(call, whole, given, calls, surest, self.bins)
            return {"actions": actions, "revealed": revealed}
        return self.run("head", {**told, "prefix": whole, **self.numbers(given)})


def need_policy(facts: dict, folder) -> None:
    """Raise UserError unless a bundle holds a policy."""
    if facts["kind"] != "policy":
        raise UserError(
            f"{folder}, a bundle of kind {facts['kind']!r}",
            "a policy's bundle",
            "export one from a checkpoint of train_policy.py; infer_onnx.py runs the others",
        )


def check_order(order: str) -> None:
    """Raise UserError unless the graphs know an order of revealing."""
    if order not in ORDERS:
        raise UserError(
            f"--order {order} with a bundle",
            "an order that its graphs know: " + ", ".join(ORDERS),
            "choose one of these, or run the checkpoint",
        )


def naming_entropy(scores: np.ndarray) -> float:
    """The entropy of the first role's choice, in nats: log-probabilities (R, N)."""
    log_p = np.maximum(scores[0], -1e4)  # a row that is no thing has -inf
    return float(-(np.exp(log_p) * log_p).sum())


def to_bins(actions: np.ndarray, bins: int) -> np.ndarray:
    """Numbers in [-1, 1] -> the nearest of `bins` bins."""
    return np.round((np.clip(actions, -1, 1) + 1) * np.float32((bins - 1) / 2)).astype(np.int32)


def unmask(
    call: Callable[[np.ndarray, np.ndarray], np.ndarray],
    prefix: np.ndarray,
    given: int,
    calls: int,
    by_confidence: bool,
    bins: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The loop of head.onnx around single calls: actions (B, T, A), and the call of each number.

    call: tokens (B, T, A) int32 and moved (B, A) -> logits (B, T, A, K). prefix: (B, T, A), of
    which the first `given` actions count.
    """
    length = prefix.shape[1]
    actions = prefix.copy()
    actions[:, given:] = 0
    moved = actions.sum(1)
    tokens = to_bins(actions, bins)
    tokens[:, given:] = bins
    revealed = np.zeros_like(tokens)
    left = length - given
    calls = min(calls, left)
    centres = np.linspace(-1, 1, bins, dtype=np.float32)
    for number in range(calls):
        logits = call(tokens, moved)
        log_p = logits - logits.max(-1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
        chosen = np.minimum((np.exp(log_p).cumsum(-1) < 0.5).sum(-1), bins - 1)
        hidden = (tokens == bins).any(-1)  # (B, T)
        score = np.broadcast_to(-np.arange(length, dtype=np.float32), hidden.shape)
        if by_confidence:
            score = np.take_along_axis(log_p, chosen[..., None], -1)[..., 0].sum(-1)
        score = np.where(hidden, score, -np.inf)
        count = left * (number + 1) // calls - left * number // calls
        rank = np.argsort(np.argsort(-score, 1, kind="stable"), 1, kind="stable")
        now = (hidden & (rank < count))[..., None]
        tokens = np.where(now, chosen.astype(np.int32), tokens)
        actions = np.where(now, centres[chosen], actions)
        revealed = np.where(now, number + 1, revealed)
    return actions, revealed


# --- the self-test -----------------------------------------------------------------------------


def golden_observations(golden: dict[str, np.ndarray]) -> list[tuple[str, list[dict]]]:
    """The golden inputs: an order and its observations, the newest first."""
    found = []
    for row, text in enumerate(golden["texts"].tolist()):
        parts = {name: golden[name][row] for name in golden if name.startswith(SEEN)}
        observed = []
        for frame in range(len(parts[SEEN + "state"])):
            observed.append({name.removeprefix(SEEN): part[frame] for name, part in parts.items()})
        found.append((text, observed))
    return found


def chunks_of(maker, observations: list, prefixes: np.ndarray | None = None) -> list[Made]:
    """A maker's chunks for N orders and their observations. prefixes: (N, n, A), or None."""
    made = []
    for number, (text, (seen, *earlier)) in enumerate(observations):
        maker.begin(text, 0)
        made.append(maker.make(seen, earlier, None if prefixes is None else prefixes[number]))
    return made


def agreement(
    maker: BundleMaker, observations: list, found: Sequence[np.ndarray], expected: Sequence
) -> dict:
    """Of chunks (T, A): the share of numbers in the same bin, and the largest difference.

    observations: an order and what is seen, the newest first, of each chunk.
    """
    ours, theirs = [], []
    for one, other, (_, (seen, *_)) in zip(found, expected, observations, strict=True):
        ours.append(maker.written(one, seen))
        theirs.append(maker.written(other, seen))
    left, right = np.stack(ours), np.stack(theirs)
    same = to_bins(left, maker.bins) == to_bins(right, maker.bins)
    return {"same": float(same.mean()), "error": float(np.abs(left - right).max())}


def self_test(maker: BundleMaker) -> int:
    """Compare with the golden chunks, measure speed and memory; 1 if too few numbers are equal.

    The checksums were right, or opening the bundle had failed.
    """
    golden = bundle.golden(maker.folder)
    limits = maker.facts["tolerances"]
    observations = golden_observations(golden)
    print(f"files: {len(maker.facts['files'])} as exported")
    good = True
    tried = {"as shipped": None, "with a prefix": golden["prefix"]}
    for name, prefixes in tried.items():
        made = chunks_of(maker, observations, prefixes)
        expected = golden[name.replace(" ", "_")]
        result = agreement(maker, observations, [each.actions for each in made], list(expected))
        good &= result["same"] >= min(limits["bins"], USUAL["bins"])
        print(
            f"golden, {name}: {100 * result['same']:.2f}% of the numbers of {len(made)} chunks in "
            f"the trained model's bins; largest difference {result['error']:.4f}"
        )
    if "places" in golden:
        error = 0.0
        for each, right in zip(made, golden["places"], strict=True):
            assert each.places is not None
            error = max(error, float(np.abs(each.places - right).max()))
        good &= error <= max(limits["places"], USUAL["places"])
        print(f"golden, places: largest difference {1000 * error:.4f} mm")
    maker.seconds.clear()
    repeats = max(1, 100 // len(observations))
    for _ in range(repeats):
        chunks_of(maker, observations)
    share = 1000 / (repeats * len(observations))
    stages = ", ".join(f"{name} {share * spent:.2f}" for name, spent in maker.seconds.items())
    print(f"speed, ms: {stages} ({maker.provider}, {maker.threads or 'all'} threads, means)")
    print(f"memory: {system.memory_text(system.peak_mib())} at most")
    print("self-test passed" if good else "self-test FAILED: do not use this bundle here")
    return 0 if good else 1
