"""Low-rank adapters: a trained network learns a new task with few weights of its own.

    y = W x + s B A x          A (r, in), B (out, r), s = alpha / r        (LoRA, arXiv 2106.09685)
                               s = alpha / sqrt(r) with --lora_root       (rsLoRA, arXiv 2312.03732)

W is the trained matrix, which stays as it is. B starts at zero, so the adapted network starts as
the trained network, bit for bit. `merge` puts s B A into W: the merged network has the shape, the
speed and the exports of the trained network.

With --lora_norm a row of the sum keeps a length of its own, m (out,), as in DoRA (arXiv
2402.09353): y = m (W + s B A) x / |W + s B A|, where | | is the length of each row.

Which matrices: those of the blocks that --lora_targets names. Never the embedding: thin matrices
could move the vectors of words in a few directions only, which all words share.

What a task owns whole is trained whole, and stands in the adapter's file:

- the head for captions' lengths, because lengths belong to a task;
- with --lora_embedding, the vectors of all words, and their codes of Gaussian noise. Nothing taught
  the vector of a word that the trained network never met, and no matrix of a block can teach it.
"""

import math
import re
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig
from base.files import UserError

SETTINGS = (
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "lora_root",
    "lora_norm",
    "lora_embedding",
)
# A matrix inside a transformer's block, whatever the list of blocks is called.
TARGET = re.compile(r"(^|\.)(blocks|layers)\.\d+\..*?(\w+)$")
DOWN, UP, LENGTH = "lora_down", "lora_up", "lora_length"  # names of an adapter's weights
WHOLE = "length_head."  # weights that a task owns whole
# And these, with --lora_embedding; the codes are those of net/gaussian_noise.py.
EMBEDDINGS = ("embedding.weight", "code.weight")


class AdaptedLinear(nn.Linear):
    """A frozen linear map and its adapter. Its state dict has the keys of the map, and more."""

    def __init__(self, base: nn.Linear, config: ModelConfig):
        # On the device `meta`: the weights of `base` follow at once.
        has_bias = base.bias is not None
        super().__init__(base.in_features, base.out_features, has_bias, device="meta")
        self.weight, self.bias = base.weight, base.bias
        rank = config.lora_rank
        self.scale = config.lora_alpha / (math.sqrt(rank) if config.lora_root else rank)
        self.lora_down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))
        self.lora_length = None
        if config.lora_norm:
            self.lora_length = nn.Parameter(base.weight.detach().norm(dim=1))

    def begin(self) -> None:
        """Take the lengths of the matrix, which was loaded after this module was made."""
        if self.lora_length is not None:
            self.lora_length.data = self.weight.detach().norm(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, in) -> (…, out)."""
        if self.lora_length is not None:
            return F.linear(x, self.whole(), self.bias)
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.lora_down), self.lora_up)

    def whole(self) -> Tensor:
        """The matrix of map and adapter together: (out, in)."""
        total = self.weight + self.scale * (self.lora_up @ self.lora_down)
        if self.lora_length is None:
            return total
        # The paper holds the length in the denominator constant for gradients (section 4.3).
        length = total.detach().norm(dim=1)
        return (self.lora_length / length)[:, None] * total

    def factors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """down (in, r), up (r, out) and gain (out,) in float64: y = gain (W x + x down up).

        gain is None without lengths. With them it is m / |W + s B A|, which no input changes.
        """
        down, up = self.lora_down.detach().double().T, self.lora_up.detach().double().T * self.scale
        if self.lora_length is None:
            return down, up, None
        total = self.weight.detach().double() + (down @ up).T
        return down, up, self.lora_length.detach().double() / total.norm(dim=1)

    def merged(self) -> nn.Linear:
        """The plain linear map that does the same, computed in float64."""
        has_bias = self.bias is not None
        plain = nn.Linear(self.in_features, self.out_features, has_bias, device="meta")
        weights = [self.weight, self.lora_up, self.lora_down]
        base, up, down = (weight.detach().double() for weight in weights)
        total = base + self.scale * (up @ down)
        if self.lora_length is not None:
            # By the length in float64: the difference to float32 is one rounding.
            total *= (self.lora_length.detach().double() / total.norm(dim=1))[:, None]
        plain.weight = nn.Parameter(total.to(self.weight.dtype))
        plain.bias = self.bias
        return plain


def targets(model: nn.Module, names: list[str]) -> Iterator[tuple[str, nn.Linear]]:
    """The matrices of the blocks with these names, and where they stand in the model."""
    for path, module in model.named_modules():
        found = TARGET.search(path)
        if found and found[3] in names and isinstance(module, nn.Linear):
            yield path, module


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def adapt(model: nn.Module, config: ModelConfig) -> nn.Module:
    """Give a network the adapters of its configuration, in place; without a rank it stays.

    Nothing but the adapter's own weights is trained then.
    Raises UserError if a name of --lora_targets is no matrix of its blocks.
    """
    if not config.lora_rank:
        return model
    found = list(targets(model, target_names(model, config)))
    for path, module in found:
        replace(model, path, AdaptedLinear(module, config))
    freeze(model, config)
    return model


def target_names(model: nn.Module, config: ModelConfig) -> list[str]:
    """The last names of the matrices that this configuration adapts.

    Raises UserError if a name of --lora_targets is no matrix of the blocks.
    """
    known = matrix_names(model)
    names = config.lora_targets.split(",") if config.lora_targets else sorted(known)
    missing = set(names) - known
    if missing:
        raise UserError(
            f"--lora_targets with {', '.join(sorted(missing))}",
            "some of " + ", ".join(sorted(known)),
            "choose among these; --lora_embedding trains the vectors of all words",
        )
    return names


def matrix_names(model: nn.Module) -> set[str]:
    """The last names of all matrices in the blocks of a network."""
    found = set()
    for path, module in model.named_modules():
        match = TARGET.search(path)
        if match and isinstance(module, nn.Linear):
            found.add(match[3])
    return found


def is_own(name: str, embedding: bool = False) -> bool:
    """Whether a weight belongs to the adapter, and not to the network that it adapts.

    embedding: the adapter has --lora_embedding.
    """
    if name.rpartition(".")[2] in (DOWN, UP, LENGTH) or name.startswith(WHOLE):
        return True
    return embedding and name in EMBEDDINGS


def is_adapted(model: nn.Module) -> bool:
    """Whether a network has adapters."""
    return any(isinstance(module, AdaptedLinear) for module in model.modules())


def check_start(config: ModelConfig, init_from: str | None, resumed: bool = False) -> None:
    """Raise UserError for adapters of a network that was never trained, or without a rank.

    Not for a resumed run: it keeps the settings that it began with.
    """
    if resumed:
        return
    plain = ModelConfig()
    for name in SETTINGS:
        if not config.lora_rank and getattr(config, name) != getattr(plain, name):
            do = f"add --lora_rank 16, or leave out --{name}"
            raise UserError(f"--{name} without --lora_rank", "a rank", do)
    if config.lora_rank and not init_from:
        raise UserError(
            f"--lora_rank {config.lora_rank} without --init_from",
            "a trained network, which stays as it is",
            "name it with --init_from",
        )


def freeze(model: nn.Module, config: ModelConfig) -> None:
    """Train the adapter's own weights alone."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(is_own(name, config.lora_embedding))


def begin(model: nn.Module) -> None:
    """Start the adapters of a network whose matrices were loaded just now."""
    for module in model.modules():
        if isinstance(module, AdaptedLinear):
            module.begin()


def merge(model: nn.Module) -> nn.Module:
    """Put every adapter into its matrix, in place: a plain network again."""
    adapted = [(path, it) for path, it in model.named_modules() if isinstance(it, AdaptedLinear)]
    for path, module in adapted:
        replace(model, path, module.merged())
    return model
