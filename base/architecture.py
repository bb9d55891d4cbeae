"""The architecture of a network as settings, and the named sizes (no torch)."""

import math
from dataclasses import dataclass

from base.files import UserError
from base.flags import check, numbers, setting, unknown

# name: (d_model, heads, layers). `caption` is xlarge's width with half of its layers (+ cross-
# attention).
NAMED_SIZES = {
    "tiny": (256, 4, 4),
    "small": (384, 6, 6),
    "medium": (512, 8, 8),
    "large": (640, 10, 10),
    "xlarge": (768, 12, 12),
    "xxlarge": (1024, 16, 16),
    "caption": (768, 12, 6),
    "image": (256, 4, 5),
}

# Width of the head for captions' lengths. A linear head gets the length wrong, and with it the
# structure of the caption (docs/log/captions.md).
LENGTH_HIDDEN = 256

# Settings of ModelConfig that a text model does not have.
OF_CAPTIONERS = ("condition_width", "length_hidden", "quality_layers", "retrieve", "patch_layers")
# What hides the tokens of a text: [MASK], random tokens, both, or noise on codes (net/noise.py).
NOISES = ("absorbing", "uniform", "hybrid", "gaussian")
# Settings of a single noise, with their defaults: of hybrid and of Gaussian noise.
OF_NOISE = {"uniform_share": ("hybrid", 0.2), "code_width": ("gaussian", 16)}

# Settings of ModelConfig that only networks of words and pictures have (net/painter.py).
OF_PAINTERS = ("picture_side", "picture_codes", "picture_levels", "plan_lines", "plan_reach")
# Settings that a captioner's trainer has no flags for: the data and the objective decide them.
NOT_OF_CAPTIONERS = (
    "vocab_size",
    "output_size",
    "causal",
    "condition_width",
    "block_sizes",
    "noise",
    *OF_NOISE,
    *OF_PAINTERS,
)


@dataclass
class ModelConfig:
    """The architecture. Stored in every checkpoint, which is the only place that readers take it
    from.
    """

    vocab_size: int = setting(8192, "tokens in the vocabulary V, special ones included", at_least=2)
    output_size: int = setting(
        8189,
        "ids below this can be emitted; [PAD], [BOS] and [MASK] lie at or above it",
        at_least=1,
    )
    max_length: int = setting(256, "longest sequence L, in tokens", at_least=2)
    d_model: int = setting(256, "width D of the residual stream", at_least=8)
    heads: int = setting(4, "attention heads H; they divide the width", at_least=1)
    layers: int = setting(4, "transformer blocks", at_least=1)
    # Both kinds are about as fast; their quality was not compared (docs/log/scaling.md).
    mlp: str = setting(
        "swiglu", "feed-forward kind; both have about 8·D² parameters", choices=("swiglu", "gelu")
    )
    experts: int = setting(
        0, "experts E of each block's feed-forward part (net/experts.py); 0: dense", at_least=0
    )
    expert_capacity: float = setting(1.0, "experts c that an average token passes", above=0.0)
    expert_hidden: int = setting(
        0, "hidden units of each expert; 0: as many as a dense network has", at_least=0
    )
    causal: bool = setting(False, "attend to the left only: the autoregressive twin")
    time_conditioning: str = setting(
        "none", "tell the network the masked share", choices=("none", "sinusoidal")
    )
    noise: str = setting(
        "absorbing",
        "what hides tokens: absorbing writes [MASK], uniform random tokens, hybrid both; gaussian "
        "adds noise to codes of tokens (net/noise.py)",
        choices=NOISES,
    )
    # Near 0 and near 1, ratios of probabilities leave the range of float32.
    uniform_share: float = setting(
        OF_NOISE["uniform_share"][1],
        "--noise hybrid: share of the tokens that are random at half time",
        at_least=0.01,
        at_most=0.99,
    )
    # Plaid's width (arXiv 2305.18619).
    code_width: int = setting(
        OF_NOISE["code_width"][1], "--noise gaussian: numbers of a token's code", at_least=1
    )
    condition_width: int = setting(
        0, "width of the condition (B, P, width) for cross-attention; 0 means none", at_least=0
    )
    length_hidden: int = setting(
        0,
        "hidden width of the head for captions' lengths; 0: a linear map of the mean patch",
        at_least=0,
    )
    dropout: float = setting(0.0, "dropout on the residual branches", at_least=0.0, below=1.0)
    block_sizes: str = setting(
        "",
        "train for these block sizes, such as 1,16,256 (pictures: 1,12,144); empty: no blocks",
        metavar="SIZES",
    )
    # A twin's weights then keep their work (arXiv 2410.17891, section 3.2). The first position of a
    # row is always given, so it needs no prediction.
    logit_shift: bool = setting(
        False,
        "each position predicts the token behind it, as in a twin: for --init_from a twin",
    )
    soft_masks: bool = setting(
        False, "a masked place carries the belief of an earlier pass (net/soft_masks.py)"
    )
    quality_layers: int = setting(
        0,
        "blocks of a head that says how likely each token is right; 0: no head (net/quality.py)",
        at_least=0,
    )
    retrieve: int = setting(
        0,
        "captions of similar images that a captioner reads; 0: the image alone (net/retrieval.py)",
        at_least=0,
    )
    patch_layers: int = setting(
        0,
        "blocks in which the patches of an image, or of all frames of a clip, read each other "
        "(net/patch_reader.py); 0: none",
        at_least=0,
    )
    picture_side: int = setting(
        0, "side S of a picture's grid of S·S tokens; 0: no pictures (net/painter.py)", at_least=0
    )
    picture_codes: int = setting(
        0, "codes of a picture's tokens: the ids below the words' ids", at_least=0
    )
    picture_levels: str = setting(
        "",
        "levels of each number of a code; empty: codes have no vectors of levels",
        metavar="SIZES",
    )

    plan_lines: str = setting(
        "",
        "ids of the words of plans that name a column of a picture, then of those that name a row; "
        "empty: no plans (worlds/plans.py)",
        metavar="IDS",
    )
    plan_reach: int = setting(
        0,
        "with plans: how far away, in places, an object is told to places of the picture "
        "(net/plan_places.py); 0: none is told",
        at_least=0,
        at_most=16,
    )

    lora_rank: int = setting(
        0,
        "train adapters of this rank, and no matrix itself (net/adapters.py); 0: no adapters",
        at_least=0,
    )
    lora_alpha: float = setting(16.0, "adapters count alpha / rank times", above=0.0)
    lora_targets: str = setting(
        "", "matrices with adapters, such as query,value; empty: all of the blocks", metavar="NAMES"
    )
    lora_root: bool = setting(False, "adapters count alpha / sqrt(rank) times: rsLoRA")
    lora_norm: bool = setting(False, "a length of its own for each row of a matrix: DoRA")
    lora_embedding: bool = setting(
        False, "train the vectors of all words too: for words that the trained network never met"
    )

    def __post_init__(self):
        check(self)
        self.check_block_sizes()
        self.check_parts()
        self.check_noise()
        self.check_experts()
        self.check_pictures()
        # Rotary positions turn the channels of a head in pairs.
        if self.d_model % (2 * self.heads):
            raise UserError(
                f"d_model {self.d_model} with {self.heads} heads",
                "an even number of channels per head",
                "choose --d_model divisible by twice --heads",
            )

    @property
    def trained_sizes(self) -> list[int]:
        """The block sizes that the network is trained for, ascending; none: a plain denoiser."""
        return sorted(set(numbers("block_sizes", self.block_sizes))) if self.block_sizes else []

    @property
    def picture_level_sizes(self) -> list[int]:
        """How many levels each number of a code has; none: codes have no vectors of levels."""
        return numbers("picture_levels", self.picture_levels) if self.picture_levels else []

    @property
    def plan_line_ids(self) -> list[list[int]]:
        """The ids of the words for columns, and of those for rows; none: rows have no plans."""
        if not self.plan_lines:
            return []
        ids = numbers("plan_lines", self.plan_lines)
        return [ids[: len(ids) // 2], ids[len(ids) // 2 :]]

    def check_block_sizes(self) -> None:
        """Raise UserError for sizes that do not fit the length, or for a model without blocks."""
        places = self.picture_side**2
        if places and self.trained_sizes and self.trained_sizes[-1] > places:
            raise UserError(
                f"--block_sizes {self.block_sizes} for pictures of {places} tokens",
                f"sizes of at most {places} tokens",
                f"leave out {self.trained_sizes[-1]}",
            )
        if self.trained_sizes and self.trained_sizes[-1] > self.max_length:
            raise UserError(
                f"--block_sizes {self.block_sizes} with --max_length {self.max_length}",
                f"sizes of at most {self.max_length} tokens",
                f"leave out {self.trained_sizes[-1]}, or raise --max_length",
            )
        if self.trained_sizes and self.causal:
            raise UserError(
                f"--block_sizes {self.block_sizes} for a twin",
                "a denoiser: block size 1 is as exact as a twin",
                "leave out --objective ar or --block_sizes",
            )
        if self.trained_sizes and self.time_conditioning != "none":
            raise UserError(
                f"--block_sizes {self.block_sizes} with --time_conditioning "
                f"{self.time_conditioning}",
                "a network that is not told the masked share",
                "leave out --time_conditioning",
            )

    def check_parts(self) -> None:
        """Raise UserError for parts of a network that do not fit together."""
        others = {
            "a twin": self.causal,
            "--block_sizes": bool(self.block_sizes),
            "--time_conditioning": self.time_conditioning != "none",
        }
        quality = f"--quality_layers {self.quality_layers}"
        shifted = {
            "a twin": self.causal,
            "--soft_masks": self.soft_masks,
            "--quality_layers": self.quality_layers > 0,
            "--retrieve": self.retrieve > 0,
        }
        parts = {
            "--logit_shift": shifted if self.logit_shift else {},
            "--soft_masks": others if self.soft_masks else {},
            # The head reads a network that does not change, so it has no use for dropout.
            quality: others
            | {
                "--soft_masks": self.soft_masks,
                "--dropout": self.dropout > 0,
                "--lora_rank": self.lora_rank > 0,
            }
            if self.quality_layers
            else {},
        }
        if self.retrieve:
            parts[f"--retrieve {self.retrieve}"] = {
                "--soft_masks": self.soft_masks,
                "--quality_layers": self.quality_layers > 0,
                "--block_sizes": bool(self.block_sizes),
                "pictures": self.picture_side > 0,
            }
        if self.patch_layers:
            parts[f"--patch_layers {self.patch_layers}"] = {
                "--soft_masks": self.soft_masks,
                "--quality_layers": self.quality_layers > 0,
                "--retrieve": self.retrieve > 0,
                "--noise " + self.noise: self.noise != "absorbing",
                "pictures as tokens": self.picture_side > 0,
            }
        for part, refused in parts.items():
            for other in [name for name, given in refused.items() if given]:
                do = "leave out one of the two"
                if part.startswith("--patch_layers"):  # captioners of clips have two by default
                    do = "add --patch_layers 0, and start from a network without patch layers"
                raise UserError(f"{part} with {other}", "a plain denoiser", do)

    def check_noise(self) -> None:
        """Raise UserError for parts that read [MASK], in a network of other noise."""
        for name, (noise, default) in OF_NOISE.items():
            value = getattr(self, name)
            if value != default and self.noise != noise:
                raise UserError(
                    f"--{name} {value:g} with --noise {self.noise}",
                    f"{noise} noise",
                    f"add --noise {noise}, or leave out --{name}",
                )
        if self.noise == "absorbing":
            return
        refused = {
            "a twin": self.causal,
            "--block_sizes": bool(self.block_sizes),
            "--soft_masks": self.soft_masks,
            "--quality_layers": self.quality_layers > 0,
            "--retrieve": self.retrieve > 0,
            "pictures": self.picture_side > 0 or self.condition_width > 0,
            "--logit_shift": self.logit_shift,
            "--experts": self.experts > 0,
        }
        for other in [name for name, given in refused.items() if given]:
            raise UserError(
                f"--noise {self.noise} with {other}",
                "a plain denoiser of text",
                "leave out one of the two",
            )
        # Masks show how many they are. Random tokens do not show that they are random, and how far
        # a token is to be trusted depends on the level of noise.
        if self.time_conditioning != "sinusoidal":
            raise UserError(
                f"--noise {self.noise} with --time_conditioning {self.time_conditioning}",
                "a network that is told the level of noise",
                "add --time_conditioning sinusoidal",
            )

    def check_experts(self) -> None:
        """Raise UserError for experts that cannot share the tokens, or in a network of parts."""
        if not self.experts:
            if self.expert_capacity != 1.0 or self.expert_hidden:
                found = "--expert_capacity or --expert_hidden without --experts"
                raise UserError(found, "experts", "add --experts, or leave out the other flags")
            return
        found = f"--expert_capacity {self.expert_capacity:g} of {self.experts} experts"
        if self.expert_capacity > self.experts:
            do = "lower --expert_capacity"
            raise UserError(found, "at most all experts for an average token", do)
        if self.causal and self.expert_capacity != int(self.expert_capacity):
            expected = "a whole number: in a twin each token passes as many experts"
            raise UserError(found + " in a twin", expected, "round --expert_capacity")
        refused = {
            # Experts choose from whole rows, and a block must not know the blocks behind it.
            "--block_sizes": bool(self.block_sizes),
            "--quality_layers": self.quality_layers > 0,
            "--retrieve": self.retrieve > 0,
            "--lora_rank": self.lora_rank > 0,
        }
        for other in [name for name, given in refused.items() if given]:
            raise UserError(
                f"--experts {self.experts} with {other}", "one of the two", "leave out the other"
            )

    def check_pictures(self) -> None:
        """Raise UserError for pictures that leave no room, or in a network of another kind."""
        if not self.picture_side and not self.picture_codes:
            return
        places = self.picture_side**2
        if not 0 < places < self.max_length or not 0 < self.picture_codes < self.output_size:
            raise UserError(
                f"pictures of {places} tokens of {self.picture_codes} codes in rows of "
                f"{self.max_length} tokens of {self.output_size} ids",
                "a picture, and room for words",
                "raise --max_length",
            )
        sizes = self.picture_level_sizes
        # Few levels each: a network reads a unit vector per level, of all codes, at each step.
        fits = math.prod(sizes) == self.picture_codes and all(2 <= size <= 256 for size in sizes)
        if sizes and not fits:
            found = f"{self.picture_codes} codes of levels {self.picture_levels}"
            expected = "2 to 256 levels each, whose product is the codes"
            raise UserError(found, expected, "choose other picture codes")
        ids = [id for part in self.plan_line_ids for id in part]
        if (
            len(ids) % 2
            or len(ids) == 2
            or any(not self.picture_codes <= id < self.output_size for id in ids)
        ):
            expected = "as many ids of words for columns as for rows, at least two"
            raise UserError(f"plan_lines {self.plan_lines}", expected, "make the folder again")
        timed = self.time_conditioning != "none"
        if timed or self.soft_masks or self.condition_width:
            found = "pictures with time, soft masks or a condition"
            raise UserError(found, "a plain denoiser", "leave out their flags")


def named_size(name: str) -> dict:
    """The settings of a named size. Raises UserError with the names that exist."""
    if name not in NAMED_SIZES:
        raise unknown(f"--model_config {name}", name, list(NAMED_SIZES))
    return dict(zip(("d_model", "heads", "layers"), NAMED_SIZES[name], strict=True))
