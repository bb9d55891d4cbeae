"""Several adapters in one bundle, chosen at run time: each adapter's numbers are inputs.

    y = gain (W x + x down up)          down (in, R), up (R, out) with the scale in it, gain (out,)

`export_onnx.py --adapter NAME=FILE …` stores W once, in the graphs. The names of the inputs are
those of the products of edge/networks.py, such as `blocks.0.qkv.down`. Products that read the same
input are one product here too: R is the sum of their ranks, and `up` is zero but for a block each.
R is the largest over the adapters, and zeros fill the rest. The base has zeros alone. `gain` exists
only if an adapter has it, which is DoRA. A captioner's adapter also brings the head for lengths and
the statistics of the features, both whole.

Why inputs, and not merged weights that ONNX Runtime takes in place of the stored weights when it
opens a graph (SessionOptions.add_external_initializers):

- TensorRT builds the weights into its engine. Merged weights need an engine per adapter, built on
  the device. Inputs of fixed shapes need a single engine, and a switch opens no graph again.
- FP16 and INT8 weights stay as the gate judged them. Merged weights would be rounded again, and
  INT8 would need scales, smoothing and calibration of its own for every adapter. The low-rank
  products are FP32 at every precision.
- The price is R (in + out) more multiplications for each in · out, and two more small products.
  A bundle with a single merged adapter (`--adapter FILE`) does not pay it.

Shapes: N blocks, P patches, R ranks.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from base import files
from base.adapter_inputs import BASE, NAME
from base.files import UserError
from edge.inputs import Trained
from edge.networks import Factors
from loop import adapter_files
from model import Denoiser
from net import adapters

# The matrices of a block of model.py behind each product of edge/networks.py, in their order there.
PARTS = {
    "qkv": ("attention.query", "attention.key", "attention.value"),
    "out": ("attention.out",),
    "cross_query": ("cross.query",),
    "cross_out": ("cross.out",),
    "up": ("mlp.gate", "mlp.up"),
    "down": ("mlp.down",),
}
# Those of all blocks together, computed once per image.
OF_CONDITION = {"key": "cross.key", "value": "cross.value"}

LowRank = tuple[Tensor, Tensor, Tensor | None]  # down (in, r), up (r, out), gain (out,), float64


@dataclass
class Variant:
    """The base or an adapter: the network that torch runs, and what the graphs read of it.

    network: the inputs of the step, the loop and the twin's next token; condition: those of the
    condition. Both are empty for a bundle without adapters.
    """

    name: str
    trained: Trained
    network: Factors = field(default_factory=dict)
    condition: Factors = field(default_factory=dict)


def parse(words: list[str] | None) -> tuple[str | None, dict[str, str]]:
    """The words of --adapter: a file to merge, or files to choose from by their names.

    Raises UserError for several files without names, and for names that are equal or no names.
    """
    words = words or []
    if len(words) == 1 and (Path(words[0]).exists() or "=" not in words[0]):
        return words[0], {}
    named: dict[str, str] = {}
    for word in words:
        name, _, path = word.partition("=")
        if not path:
            raise UserError(
                f"--adapter {word} among {len(words)}",
                "a name for each, or a single file to merge",
                "write NAME=FILE",
            )
        if not NAME.fullmatch(name) or name == BASE:
            raise UserError(
                f"--adapter {word}",
                f"NAME=FILE, NAME of at most 40 letters, digits, - and _, and not {BASE}",
                "choose another name",
            )
        if name in named:
            raise UserError(f"--adapter {name} twice", "a name for each adapter", "rename one")
        named[name] = path
    return None, named


def check_words(name: str, path: str) -> None:
    """Raise UserError for an adapter whose file holds the vectors of all words.

    As inputs they would be the largest of all, and the graphs hold the base's, rounded in INT8.
    """
    _, about = adapter_files.header(path)
    if about["model"].get("lora_embedding"):
        raise UserError(
            f"--adapter {name}={path}, which has words of its own (--lora_embedding)",
            "adapters that share the words of their network",
            "merge it, as the only adapter of a bundle: --adapter FILE",
        )


def low_rank(model: Denoiser) -> dict[str, LowRank]:
    """The low-rank matrices of a network with adapters, by the paths of its matrices.

    Raises UserError for a matrix that the graphs do not have.
    """
    known = [part for parts in PARTS.values() for part in parts] + list(OF_CONDITION.values())
    found = {}
    for path, module in model.named_modules():
        if not isinstance(module, adapters.AdaptedLinear):
            continue
        part = path.split(".", 2)[-1]
        if part not in known:
            raise UserError(
                f"an adapter of {path}",
                "an adapter of a block's matrices",
                "merge it: name no NAME",
            )
        down, up, gain = module.factors()
        if part == "cross.out":  # the gate is folded into this matrix (edge/networks.py)
            block = model.get_submodule(path.removesuffix(".out"))
            up = up * block.gate.detach().double()
        found[path] = down, up, gain
    return found


def padded(own: LowRank | None, weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Low-rank matrices of a weight (out, in) with zeros up to `rank`, and ones for no gain."""
    down, up = torch.zeros(weight.shape[1], rank), torch.zeros(rank, weight.shape[0])
    down, up, gain = down.double(), up.double(), torch.ones(weight.shape[0]).double()
    if own is not None:
        size = own[0].shape[1]
        down[:, :size], up[:size] = own[0], own[1]
        gain = gain if own[2] is None else own[2]
    return down, up, gain


class Layout:
    """The ranks and the gains that every variant of a bundle shares."""

    def __init__(self, found: list[dict[str, LowRank]]):
        self.ranks: dict[str, int] = {}
        self.with_gain: set[str] = set()
        for own in found:
            for path, (down, _, gain) in own.items():
                self.ranks[path] = max(down.shape[1], self.ranks.get(path, 0))
                if gain is not None:
                    self.with_gain.add(path)

    def parts(
        self, model: Denoiser, own: dict[str, LowRank], paths: list[str], rank: int = 0
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The padded matrices of each path, to its own rank or to `rank`."""
        made = []
        for path in paths:
            weight = model.get_submodule(path).weight
            made.append(padded(own.get(path), weight, rank or self.ranks.get(path, 0)))
        return made

    def named(self, name: str, paths: list[str], down: Tensor, up: Tensor, gains) -> Factors:
        """The inputs of one product, in float32."""
        made = {f"{name}.down": down, f"{name}.up": up}
        if self.with_gain & set(paths):
            made[f"{name}.gain"] = torch.cat(gains)
        return {key: value.float().contiguous() for key, value in made.items()}

    def network(self, model: Denoiser, own: dict[str, LowRank]) -> Factors:
        """The factors of the blocks' products."""
        result: Factors = {}
        known = dict(model.named_modules())
        for layer in range(len(model.blocks)):
            for name, parts in PARTS.items():
                paths = [f"blocks.{layer}.{part}" for part in parts]
                paths = [path for path in paths if path in known]
                if not self.ranks.keys() & set(paths):
                    continue
                downs, ups, gains = zip(*self.parts(model, own, paths), strict=True)
                down, up = torch.cat(downs, 1), torch.block_diag(*ups)
                result |= self.named(f"blocks.{layer}.{name}", paths, down, up, gains)
        return result

    def condition(self, trained: Trained, own: dict[str, LowRank]) -> Factors:
        """The factors of a captioner's condition; none for a text model."""
        model, statistics = trained.model, trained.saved["statistics"]
        if model.length_head is None:
            return {}
        result: Factors = {}
        for name, part in OF_CONDITION.items():
            paths = [f"blocks.{layer}.{part}" for layer in range(len(model.blocks))]
            rank = max(self.ranks.get(path, 0) for path in paths)
            if rank:
                downs, ups, gains = zip(*self.parts(model, own, paths, rank), strict=True)
                result |= self.named(name, paths, torch.cat(downs, 1), torch.stack(ups), gains)
        for name, weight in model.length_head.named_parameters():
            result[adapters.WHOLE + name] = weight.detach().clone()
        result["statistics.mean"] = torch.tensor(statistics["feature_mean"])
        result["statistics.scale"] = 1 / torch.tensor(statistics["feature_std"])
        result["statistics.place"] = torch.tensor([float(statistics.get("place_scale", 1.0))])
        return result


def open_variants(base: Trained, named: dict[str, str]) -> list[Variant]:
    """The base, and each adapter on it; the base alone without adapters.

    Raises UserError for an adapter of another network, or a file that is damaged.
    """
    if not named:
        return [Variant(BASE, base)]
    variants, found = [Variant(BASE, base)], [{}]
    for name, path in named.items():
        check_words(name, path)
        model, saved = copy.deepcopy(base.model), dict(base.saved)
        adapter_files.attach(model, saved, base.tokenizer.fingerprint, path)
        found.append(low_rank(model))
        adapters.merge(model)
        trained = Trained(model.eval(), base.tokenizer, saved, base.encoder)
        variants.append(Variant(name, trained))
    layout = Layout(found)
    for variant, own in zip(variants, found, strict=True):
        variant.network = layout.network(variant.trained.model, own)
        variant.condition = layout.condition(variant.trained, own)
    return variants


def describe(named: dict[str, str]) -> dict[str, dict]:
    """What bundle.json says of the adapters: their files, and of which adapter.safetensors."""
    said = {BASE: {"file": f"adapters/{BASE}.npz"}} if named else {}
    for name, path in named.items():
        said[name] = {
            "file": f"adapters/{name}.npz",
            "sha256": files.sha256(Path(path).read_bytes()),
        }
    return said


def write(variants: list[Variant], folder: Path) -> None:
    """Write adapters/NAME.npz for each variant of a bundle with adapters."""
    for variant in variants:
        factors = variant.network | variant.condition
        if not factors:
            continue
        (folder / "adapters").mkdir(exist_ok=True)
        arrays = {name: factor.numpy() for name, factor in factors.items()}
        with files.replacing(folder / "adapters" / f"{variant.name}.npz") as file:
            np.savez_compressed(file, **arrays)
