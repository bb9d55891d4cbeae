"""Soft masks: a place that is still masked tells what an earlier call believed (arXiv 2510.17206).

A plain denoiser forgets all that it thought, except for the tokens that were drawn. Here the input
of a masked place is a mixture of the embeddings e of [MASK] and of the three likeliest tokens:

    (1 - lam) e_mask + lam (pi_1 e_1 + pi_2 e_2 + pi_3 e_3)      lam = w_s sigmoid(w_a (-H - w_b))

H is the entropy of the belief at this place, in nats. pi are its three largest probabilities,
divided by their sum. The scalars w_s, w_a and w_b are trained. With w_s = 0 it is a plain denoiser.

The belief comes from one of two places:

    fresh    A first pass on the same text, without beliefs. A call takes two passes. It is a
             function of the masked text alone, so it is an ordinary `Denoise`. The bound is a true
             bound, and all samplers and speculation keep their laws.
    carried  The previous call on the same row. A call takes one pass. The network then has a
             memory: its law is that of the sampler with this memory, not that of the bound. The
             trace is exact under it for orders that do not look at drawn tokens.

Training uses fresh beliefs. The first pass has no gradient.

Shapes: B rows, L positions, D width, K soft places, M selected places, V' ids that can be written.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from base.config import ModelConfig, SampleConfig
from base.files import UserError
from diffusion import Denoise
from model import Denoiser, KeysValues
from net import (
    adapters,
    experts,
    gaussian_noise,
    kernels,
    painter,
    patch_reader,
    quality,
    retrieval,
)

LIKELIEST = 3  # tokens of a belief
# At the start: lam is below 0.1, and half of that at an entropy of 1 nat.
START = {"w_s": 0.1, "w_a": 1.0, "w_b": -1.0}


@dataclass
class Belief:
    """What a call believes of the places that it was asked for.

    known: (B, L) bool, these places. ids: (B, L, 3) int64, the likeliest tokens there. weight:
    (B, L, 3), their probabilities divided by their sum. entropy: (B, L) nats, of all V' ids.
    """

    known: Tensor
    ids: Tensor
    weight: Tensor
    entropy: Tensor

    def where(self, rows: Tensor, other: "Belief") -> "Belief":
        """This belief in the rows (B,) bool, the other belief in all other rows."""
        return Belief(
            torch.where(rows[:, None], self.known, other.known),
            torch.where(rows[:, None, None], self.ids, other.ids),
            torch.where(rows[:, None, None], self.weight, other.weight),
            torch.where(rows[:, None], self.entropy, other.entropy),
        )


def belief_of(logits: Tensor, where: Tensor) -> Belief:
    """The belief at the places `where` (B, L) bool. logits: (M, V') of these places."""
    log_prob = logits.float().log_softmax(-1)
    prob = log_prob.exp()
    largest, likeliest = prob.topk(min(LIKELIEST, prob.shape[-1]))  # (M, 3)
    ids = torch.zeros(*where.shape, largest.shape[-1], dtype=torch.long, device=where.device)
    weight = torch.zeros(ids.shape, device=where.device)
    entropy = torch.zeros(where.shape, device=where.device)
    ids[where] = likeliest
    weight[where] = largest / largest.sum(-1, keepdim=True)
    entropy[where] = -(prob * log_prob).sum(-1)
    return Belief(where, ids, weight, entropy)


class SoftDenoiser(Denoiser):
    """A denoiser with soft masks. `forward` is still one plain pass; `bind` makes two."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        # Of shape (1,), because FSDP2 takes no scalars.
        self.w_s = nn.Parameter(torch.full((1,), START["w_s"]))
        self.w_a = nn.Parameter(torch.full((1,), START["w_a"]))
        self.w_b = nn.Parameter(torch.full((1,), START["w_b"]))
        self.mask_id = config.vocab_size - 1  # the tokenizer's last id (base/tokenizer.py)

    def soften(self, tokens: Tensor, belief: Belief) -> Tensor:
        """Embeddings (B, L, D) of tokens (B, L), soft at masked places with a known belief."""
        x = self.embedding(tokens)
        soft = belief.known & (tokens == self.mask_id)
        lam = self.w_s * torch.sigmoid(self.w_a * (-belief.entropy[soft] - self.w_b))  # (K,)
        tokens_there = self.embedding(belief.ids[soft])  # (K, 3, D)
        guess = (belief.weight[soft][..., None] * tokens_there).sum(1)  # (K, D)
        lam = lam[:, None]
        mixed = (1 - lam) * x[soft] + lam * guess
        return x.masked_scatter(soft[..., None], mixed)

    def bind(
        self, lengths: Tensor | None = None, condition: list[KeysValues] | None = None
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """A `diffusion.Denoise` with fresh beliefs: two passes per call."""

        def denoise(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
            masked = tokens == self.mask_id
            with torch.no_grad():
                logits = self(tokens, lengths=lengths, condition=condition, select=masked)
            # Older versions of torch keep autocast's copies of the weights, here without gradient.
            torch.clear_autocast_cache()
            inputs = self.soften(tokens, belief_of(logits, masked))
            return self(tokens, lengths=lengths, condition=condition, select=select, inputs=inputs)

        return denoise

    def plain(
        self, lengths: Tensor | None = None, condition: list[KeysValues] | None = None
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """A `diffusion.Denoise` without beliefs: one pass per call."""
        return super().bind(lengths, condition)


class Carried:
    """A `diffusion.Denoise` with memory: one pass per call, for one run of a sampler.

    Each call computes the logits of all masked places, since the next call needs their beliefs. A
    place has a belief if it was masked in the previous call too. In the first call none has.

    A call counts for the rows in which it selects a place. A row that is asked about an unchanged
    text gets the same answer again. So the calls that a row's neighbours need change nothing.
    """

    def __init__(
        self,
        model: SoftDenoiser,
        lengths: Tensor | None = None,
        condition: list[KeysValues] | None = None,
    ):
        self.model, self.lengths, self.condition = model, lengths, condition
        self.text: Tensor | None = None  # (B, L), of each row's last call
        self.used: Belief  # what that call was told
        self.said: Belief  # what it believed

    @torch.no_grad()
    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor, /) -> Tensor:
        wanted = select | (tokens == self.model.mask_id)
        if self.text is None:
            self.start(tokens)
        assert self.text is not None
        if self.text.shape != tokens.shape:
            raise ValueError("a carried belief is of the same rows in every call")
        changed = (tokens != self.text).any(1)
        used = self.said.where(changed, self.used)
        logits = self.model(
            tokens,
            lengths=self.lengths,
            condition=self.condition,
            select=wanted,
            inputs=self.model.soften(tokens, used),
        )
        called = select.any(1)
        self.text = torch.where(called[:, None], tokens, self.text)
        self.used = used.where(called, self.used)
        self.said = belief_of(logits, wanted).where(called, self.said)
        return logits[select[wanted]]

    def start(self, tokens: Tensor) -> None:
        """No text yet, and no belief."""
        self.text = torch.full_like(tokens, -1)
        nothing = torch.zeros_like(tokens, dtype=torch.bool)
        empty = torch.zeros(0, self.model.config.output_size, device=tokens.device)
        self.used = self.said = belief_of(empty, nothing)


# ---- Which denoiser


def build(config: ModelConfig) -> Denoiser:
    """The denoiser, or the twin, that a configuration describes, with its experts and adapters."""
    if config.quality_layers:
        return quality.QualityDenoiser(config)
    if config.noise == "gaussian":
        model: Denoiser = gaussian_noise.GaussianDenoiser(config)
    elif config.picture_side:
        model = painter.Painter(config)
    elif config.retrieve:
        model = retrieval.RetrievingDenoiser(config)
    elif config.patch_layers:
        model = patch_reader.PatchDenoiser(config)
    else:
        model = SoftDenoiser(config) if config.soft_masks else Denoiser(config)
    experts.install(model, config)
    adapters.adapt(model, config)
    return model


def check(model: nn.Module, settings: SampleConfig) -> None:
    """Raise UserError if a network has no beliefs to carry, or no quality head to recheck."""
    quality.check(model, settings)
    if settings.carry and not isinstance(model, SoftDenoiser):
        raise UserError(
            "--carry with a network without soft masks",
            "a checkpoint of --soft_masks",
            "leave out --carry",
        )


def writer_of(
    model: Denoiser,
    settings: SampleConfig,
    lengths: Tensor | None = None,
    condition: list[KeysValues] | None = None,
) -> Denoise:
    """The denoiser of one run of a sampler: `model.bind`, or with --carry a memory of its own."""
    check(model, settings)
    if settings.carry:
        assert isinstance(model, SoftDenoiser)
        return Carried(model, lengths, condition)
    return model.bind(lengths, condition)


def trainer_of(
    model: Denoiser, batch: dict, lengths: Tensor | None, condition: list[KeysValues] | None = None
) -> Denoise:
    """The denoiser of a training step: plain in the steps whose batch says so."""
    if isinstance(model, SoftDenoiser) and not batch.get("soft", True):
        return model.plain(lengths, condition)
    if kernels.are_used(model):
        return kernels.Chunked(model, lengths, condition)
    return model.bind(lengths, condition)
