"""How good a model is on each held-out document: sums over its rows.

The denoiser is told the length of a row, and pays -log p(length) for it. A block model is told how
many places of each block are real, and pays for that. The twin ends its texts itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

import diffusion
from base.randomness import row_seed
from loop import distributed
from loop.batches import to_device
from net import blocks, noise, twin
from text.data import TextData, evaluation_batches

LEVELS = 4  # quarters of the masked share, for the figures by noise level


@dataclass
class DocumentScores:
    """Sums over each of N held-out documents, float64.

    nats (N,): the bound or -log p, with the length. length_nats (N,): the length's share of it.
    tokens, bytes (N,): predicted tokens, and the bytes of raw text that they stand for.
    guesses (N, 3): masked tokens over all draws, the sum of their -log p, the number of right
    guesses (of the twin: every token once). by_level (4, N, 3): guesses by quarter of masked share.
    """

    nats: np.ndarray
    length_nats: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    guesses: np.ndarray
    by_level: np.ndarray

    @classmethod
    def zeros(cls, count: int) -> "DocumentScores":
        sums = [np.zeros(count) for _ in range(4)]
        return cls(*sums, guesses=np.zeros((count, 3)), by_level=np.zeros((LEVELS, count, 3)))

    def add_exact(self, documents: np.ndarray, guesses: np.ndarray) -> None:
        """The twin's rows (B,) and their guesses (B, 3): -log p is exact."""
        # np.add.at, not +=: a long document has several rows in a batch, and += keeps only one.
        np.add.at(self.nats, documents, guesses[:, 1])
        np.add.at(self.guesses, documents, guesses)

    def add_lengths(self, documents: np.ndarray, nats: np.ndarray) -> None:
        """What the denoiser pays for the lengths of its rows, (B,) nats."""
        np.add.at(self.length_nats, documents, nats)
        np.add.at(self.nats, documents, nats)

    def add_estimate(self, documents: np.ndarray, estimate: dict, draws: int) -> None:
        """One of `draws` estimates of `diffusion.bound_estimates`."""
        # Each draw is an unbiased estimate of the bound, so their mean is one too.
        np.add.at(self.nats, documents, estimate["nats"].numpy() / draws)
        # float64: float32 loses the small terms of sums over a whole corpus.
        names = ("masked", "cross_entropy", "hits")
        guesses = np.stack([estimate[name].double().numpy() for name in names], axis=1)
        np.add.at(self.guesses, documents, guesses)
        # 1e-9: a share of exactly 1/4 belongs to the first quarter, 1 to the last.
        level = (estimate["share"].numpy() * LEVELS - 1e-9).astype(int)
        np.add.at(self.by_level, (np.minimum(level, LEVELS - 1), documents), guesses)

    def over_processes(self) -> "DocumentScores":
        """The sums over all processes of torchrun."""
        return DocumentScores(
            *(distributed.total(getattr(self, field.name)) for field in fields(self))
        )

    def figures(self) -> dict[str, float]:
        """Over all documents: nats per token, and how well masked tokens are guessed."""
        masked, cross_entropy, hits = self.guesses.T
        return {
            # A ratio of sums, not a mean of ratios: every token counts the same.
            "nats_per_token": self.nats.sum() / self.tokens.sum(),
            # At least 1: a few short documents may have no masked token, and 0 / 0 is nan.
            "masked_cross_entropy": cross_entropy.sum() / max(1.0, masked.sum()),
            "masked_accuracy": hits.sum() / max(1.0, masked.sum()),
        }


def length_costs(histogram, max_length: int, shortest: int) -> np.ndarray:
    """-log p(length) in nats for lengths 0 to max_length: (max_length + 1,) float64.

    histogram: counts by length. Add-one smoothing makes every length from `shortest` up possible;
    shorter lengths cost infinity.
    """
    # Without smoothing, a held-out length that training never had would cost infinity.
    count = np.ones(max_length + 1)
    histogram = np.asarray(histogram, dtype=np.float64)[: max_length + 1]
    count[: len(histogram)] += histogram
    count[:shortest] = 0.0
    # log(0) is meant: the cost of an impossible length is infinity.
    with np.errstate(divide="ignore"):
        return -np.log(count / count.sum())


def block_length_costs(costs: np.ndarray, size: int) -> np.ndarray:
    """What blocks of `size` tokens are told of a row's length, in nats: (max_length + 1,) float64.

    costs: `length_costs`. A block that begins is told how many of its places are real. So it pays
    -log p(they are), given that the row goes on behind the block before. In blocks of one token
    nothing is told, and a single block is told the length: between the two costs lies the rest.
    """
    probability = np.exp(-costs)
    reaches = probability[::-1].cumsum()[::-1]  # of each length: P(a row is at least this long)
    told = np.full(len(costs), np.inf)
    before = 0.0  # paid for the full blocks so far
    for start in range(0, len(costs) - 1, size):
        end = start + size
        if not reaches[start + 1]:
            break  # no row goes on
        for length in range(start + 1, min(end, len(costs))):
            told[length] = before + costs[length] + np.log(reaches[start + 1])
        if end < len(costs) and reaches[end]:
            before += np.log(reaches[start + 1]) - np.log(reaches[end])
            told[end] = before
    return told


def exact_guesses(model, tokens: Tensor, free: Tensor) -> np.ndarray:
    """Of each row the twin's tokens, their -log p and its right guesses: (B, 3) float64."""
    nats, hits = twin.token_losses(model, tokens, free)
    # From the second column: the first token has no token before it to be predicted from.
    row = free[:, 1:].nonzero()[:, 0].cpu()
    guesses = torch.zeros(len(tokens), 3, dtype=torch.float64)
    guesses[:, 0] = free.sum(1).cpu()
    for column, values in ((1, nats), (2, hits)):
        guesses[:, column].index_add_(0, row, values.double().cpu())
    return guesses.numpy()


def bound_estimates(
    model, rows: tuple, estimator: str, block_size: int, drawn: dict
) -> list[dict[str, Tensor]]:
    """Estimates of the bound of rows (tokens, lengths, free), as a whole or in blocks.

    drawn: mask_id, rng and draws of `diffusion.bound_estimates`. A network of other noise takes its
    own bound, without an estimator.
    """
    tokens, lengths, free = rows
    if noise.is_other(model.config):
        return noise.bound_estimates(model, rows, **drawn)
    if not block_size:
        denoise = model.bind(lengths)
        return diffusion.bound_estimates(denoise, tokens, free, estimator=estimator, **drawn)
    in_blocks = blocks.bind(model, block_size, lengths)
    return blocks.bound_estimates(in_blocks, tokens, free, size=block_size, **drawn)


@torch.no_grad()
def score_documents(
    model,
    objective: str,
    data: TextData,
    statistics: dict,
    *,
    documents: int | None = None,
    draws: int = 8,
    batch_size: int = 32,
    seed: int = 0,
    estimator: str = "count",
    block_size: int = 0,
    progress: Callable = iter,
) -> DocumentScores:
    """Score the first `documents` held-out documents (None: all) with `draws` noise levels per row.

    block_size: of a block model; 0: a row is a single block.
    Under torchrun each process scores its share of the batches, and all get all sums.
    """
    count = min(documents or data.num_documents, data.num_documents)
    scores = DocumentScores.zeros(count)
    # A row has at least two tokens: the given one and a predicted one.
    costs = length_costs(statistics["row_lengths"], data.max_length, shortest=2)
    if block_size:
        costs = block_length_costs(costs, block_size)
    # Bits per byte, not per token: only then are models with other tokenizers comparable.
    token_bytes = torch.as_tensor(data.tokenizer.token_bytes())
    # A batch's number seeds it, so it does not matter which process scores it.
    numbered = list(enumerate(evaluation_batches(data, batch_size, count)))
    for number, batch in progress(numbered[distributed.rank() :: distributed.world()]):
        tokens, lengths, free = to_device(batch, model.device)
        owners = np.asarray(batch["documents"])
        # [EOS] is predicted too, but it stands for no bytes of text.
        sizes = (token_bytes[tokens.cpu()] * free.cpu()).sum(1).numpy()
        np.add.at(scores.tokens, owners, free.sum(1).cpu().numpy())
        np.add.at(scores.bytes, owners, sizes)
        if objective == "ar":
            # The twin predicts [EOS], so its likelihood holds the length already.
            scores.add_exact(owners, exact_guesses(model, tokens, free))
            continue
        scores.add_lengths(owners, costs[batch["lengths"].numpy()])
        rng = torch.Generator().manual_seed(row_seed(seed, number))
        drawn = {"mask_id": data.tokenizer.mask, "rng": rng, "draws": draws}
        rows = (tokens, lengths, free)
        estimates = bound_estimates(model, rows, estimator, block_size, drawn)
        for estimate in estimates:
            scores.add_estimate(owners, estimate, len(estimates))
    return scores.over_processes()
