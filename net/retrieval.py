"""A denoiser that reads captions of similar images, next to the image.

    memory of a row = [ its image's patches | tokens of caption 1 | ... | tokens of caption K ]

A token of a given caption becomes a patch: its embedding, normalised and projected to the width of
the features, plus a code of its place in the caption and a code of the caption's number. The
cross-attention of every block then reads the memory as it reads an image.

Why not a prefix [BOS] captions [SEP] caption of the row? The memory is better in five ways:

- It is cheaper. A prefix triples the row, and each call of the denoiser pays for it. The memory is
  read once per image, and n captions of an image share it.
- The row stays the caption. So the length head, templates, blanks, the twin and all samplers work
  as they do without retrieval.
- The bound stays a bound of log p(caption | image, given captions). Nothing of what is given is
  masked, scored or counted.
- The blind model, from which guidance steers away, is still the model without a condition.
- Without given captions the memory is the image alone. The network is then the plain denoiser with
  the same weights, bit for bit.

The length head sees the image alone. A reader that gives no `Seen` is refused: a plain image would
silently be an empty store.

Shapes: B rows, P patches, K given captions, W tokens of the longest of them, C width of the
features, D width of the denoiser.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from base.config import ModelConfig
from base.files import UserError
from model import Denoiser, KeysValues, Norm

CODE_STD = 0.5  # of the codes at the start, next to features of unit deviation; not measured


@dataclass
class Given:
    """Captions that are given with an image, as ids without [BOS] and [EOS].

    ids: (B, K, W) int64. lengths: (B, K) int64; a caption of length 0 is not there.
    """

    ids: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "Given":
        """The same on a device."""
        return Given(self.ids.to(device), self.lengths.to(device))

    def where(self, kept: Tensor) -> "Given":
        """The same, but nothing is given in the rows that are not in kept (B,) bool."""
        return Given(self.ids, self.lengths * kept.to(self.lengths.device)[:, None])


@dataclass
class Seen:
    """What a captioner sees: standardised features (B, P, C), and captions of similar images."""

    features: Tensor
    given: Given

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows) -> "Seen":
        return Seen(self.features[rows], Given(self.given.ids[rows], self.given.lengths[rows]))

    @property
    def device(self) -> torch.device:
        return self.features.device


def blind(seen: Tensor | Seen) -> Tensor | Seen:
    """The same rows without an image, and without given captions: zeros, as training showed."""
    if isinstance(seen, Seen):
        nothing = seen.given.where(torch.zeros(len(seen), dtype=torch.bool))
        return Seen(seen.features * 0.0, nothing)
    return seen * 0.0


class RetrievingDenoiser(Denoiser):
    """A denoiser whose condition is a `Seen`. Without given captions it is the plain denoiser."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        # After the plain parts, which get the random numbers that they would get without it.
        width = config.condition_width
        self.given_norm = Norm(config.d_model)
        self.given = nn.Linear(config.d_model, width, bias=False)
        self.given_place = nn.Embedding(config.max_length, width)
        self.given_number = nn.Embedding(config.retrieve, width)
        # A normalised embedding then becomes a patch of unit deviation, as an image's patches are.
        nn.init.normal_(self.given.weight, std=1 / math.sqrt(config.d_model))
        for code in (self.given_place, self.given_number):
            nn.init.normal_(code.weight, std=CODE_STD)

    def memory(self, seen: Seen) -> tuple[Tensor, Tensor | None]:
        """What the blocks attend to: (B, P + K·W, C), and which of it is real: (B, 1, 1, P + K·W).

        None in place of the second if nothing is padding.
        """
        K, W = seen.given.ids.shape[1:]
        # Asked before the move: a question to the GPU would wait for the GPU.
        if not seen.given.lengths.any():
            return seen.features, None  # to the bit what a plain denoiser reads
        is_full = bool((seen.given.lengths == W).all())
        given = seen.given.to(self.device)
        place = torch.arange(W, device=self.device)
        x = self.given(self.given_norm(self.embedding(given.ids)))  # (B, K, W, C)
        number = torch.arange(K, device=self.device)
        x = x + self.given_place(place) + self.given_number(number)[:, None]
        real = place < given.lengths[..., None]  # (B, K, W)
        image = torch.ones(seen.features.shape[:2], dtype=torch.bool, device=self.device)
        attend = torch.cat([image, real.flatten(1)], 1)  # (B, P + K·W)
        patches = torch.cat([seen.features, x.flatten(1, 2).to(seen.features.dtype)], 1)
        return patches, None if is_full else attend[:, None, None]

    def keys_values(
        self, condition: Tensor | Seen, attend: Tensor | None = None
    ) -> list[KeysValues]:
        """What every block reads of the images and their given captions.

        Raises UserError for features alone.
        """
        if not isinstance(condition, Seen):
            raise UserError(
                "a captioner that reads captions of similar images, without such captions",
                "a captioner that reads the image alone",
                "use generate_caption.py or evaluate.py with --store, or train without --retrieve",
            )
        patches, real = self.memory(condition)
        return super().keys_values(patches, real)

    def length_logits(self, condition: Tensor | Seen) -> Tensor:
        """As `Denoiser.length_logits`: from the image alone."""
        features = condition.features if isinstance(condition, Seen) else condition
        return super().length_logits(features)
