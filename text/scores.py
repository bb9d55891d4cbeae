"""How good a model is on held-out rows: the bound, or the twin's exact likelihood, in one unit.

The model is given the first token of a row and predicts the rest, [EOS] included. The twin is
scored on the same tokens, but it also says where a text ends. The denoiser is told the length of
the row.
So that both describe the same raw text, the denoiser pays -log p(length) under the training rows'
histogram (add-one smoothed): about 0.02 nats per token on TinyStories.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

import diffusion
from base import metrics
from base.config import ESTIMATORS, SampleConfig
from base.files import UserError
from base.flags import check, numbers, setting
from base.folders import check_tokenizer
from base.randomness import row_seed
from loop import checkpoint, distributed
from loop.batches import to_device
from net import twin
from show import plots
from text import samples
from text.data import TextData, evaluation_batches, from_text

# The samplers of the grid in docs/log/text.md, so that a new run has the same rows.
GRID = "ancestral,first_hitting,confidence,entropy_bound,threshold,remask"
LEVELS = 4  # quarters of the masked share, for the figures by noise level


@dataclass
class TextScoring:
    """How held-out text is scored: the bound, or samples over a grid of samplers and steps."""

    data_dir: str = setting("data_full", "folder of a prep script", metavar="FOLDER")
    text: str | None = setting(None, "score this UTF-8 text file instead", metavar="FILE")
    separator: str = setting("<|endoftext|>", "stands between the documents of --text")
    documents: int = setting(0, "score only the first documents; 0 means all", at_least=0)
    draws: int = setting(
        8, "noise levels per row; more narrows the noise, not the interval", at_least=1
    )
    estimator: str = setting("count", "all give the same bound", choices=ESTIMATORS)
    samples: bool = setting(False, "draw samples over a grid instead, and judge them")
    judge: str | None = setting(
        None, "a text twin's checkpoint, for nats per token of the samples", metavar="FILE"
    )
    samplers: str = setting(GRID, "how to draw: samplers with commas between them")
    step_counts: str = setting("16,64", "denoiser calls: numbers with commas between them")
    num_samples: int = setting(32, "samples per cell of the grid, prompts or images", at_least=1)
    min_tokens: int = setting(
        200, "samples copy the lengths of held-out texts at least this long", at_least=1
    )
    picture: str | None = setting(None, "draw the figures into this PNG", metavar="FILE")

    def __post_init__(self):
        check(self)
        numbers("step_counts", self.step_counts)


def score(opened: tuple, options: TextScoring, settings: SampleConfig, seed: int) -> dict:
    """The figures of a text checkpoint, which are printed too.

    opened: (model, tokenizer, rest) of `checkpoint.open_model`. settings: how samples are drawn.
    """
    model, tokenizer, saved = opened
    # The picture shows the judge's nats, so without a judge there is nothing to draw.
    if options.picture and not (options.samples and options.judge):
        raise UserError(
            "--picture alone",
            "something to draw",
            "add --samples --judge checkpoints_ar/best.pt, or --curves RUN RUN",
        )
    held_out = open_data(options, tokenizer, saved, model.config.max_length)
    if not options.samples:
        result = likelihood(model, saved, held_out, options, seed)
        if distributed.leads():
            print("\n".join(likelihood_lines(result)))
        return result
    judge = open_judge(options.judge, tokenizer, model.device) if options.judge else None
    cells = samples.cells(
        saved["objective"], settings, options.samplers, numbers("step_counts", options.step_counts)
    )
    rows = samples.grid(
        opened, held_out, judge, cells, options.num_samples, options.min_tokens, seed
    )
    if distributed.leads():
        print(metrics.markdown(samples.table(rows)))
        if options.picture:
            plots.sampler_grid(options.picture, rows)
    return {"samples": rows, "seed": seed, "num_samples": options.num_samples}


def open_data(options: TextScoring, tokenizer, saved: dict, max_length: int) -> TextData:
    """The held-out rows: the documents of --text if it is given, else the val split of a folder."""
    if options.text:
        # The arrays are memory-mapped, and on Linux they outlive the names of their files.
        with tempfile.TemporaryDirectory() as folder:
            return from_text(options.text, options.separator, tokenizer, folder, max_length)
    held_out = TextData(options.data_dir, "val", max_length)
    check_tokenizer(held_out.meta["tokenizer"], tokenizer.fingerprint, options.data_dir)
    if held_out.meta["fingerprint"] != saved["data"]["fingerprint"]:
        distributed.say(
            f"note: this model was not trained on {options.data_dir}; its split may differ"
        )
    return held_out


def open_judge(path: str, tokenizer, device) -> torch.nn.Module:
    """The text twin that judges samples. Raises UserError if it is no twin or has other tokens."""
    judge, its_tokenizer, saved = checkpoint.open_model(path, device, kinds=("text",))
    check_tokenizer(its_tokenizer.fingerprint, tokenizer.fingerprint, path)
    check_twin(path, saved)
    return judge


def check_twin(path: str, saved: dict) -> None:
    """Raise UserError unless a checkpoint is autoregressive."""
    if saved["objective"] != "ar":
        raise UserError(
            f"{path} trained with --objective {saved['objective']}",
            "an autoregressive twin",
            "train one with --objective ar",
        )


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
    progress: Callable = iter,
) -> DocumentScores:
    """Score the first `documents` held-out documents (None: all) with `draws` noise levels per row.

    Under torchrun each process scores its share of the batches, and all get all sums.
    """
    count = min(documents or data.num_documents, data.num_documents)
    scores = DocumentScores.zeros(count)
    # A row has at least two tokens: the given one and a predicted one.
    costs = length_costs(statistics["row_lengths"], data.max_length, shortest=2)
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
        noise = {"rng": rng, "draws": draws, "estimator": estimator}
        denoise, mask_id = model.bind(lengths), data.tokenizer.mask
        estimates = diffusion.bound_estimates(denoise, tokens, free, mask_id=mask_id, **noise)
        for estimate in estimates:
            scores.add_estimate(owners, estimate, draws)
    return scores.over_processes()


def summary(
    model,
    objective: str,
    data: TextData,
    statistics: dict,
    *,
    documents: int | None = None,
    draws: int = 8,
) -> dict[str, float]:
    """The figures that training logs: nats per token first, then how masked tokens are guessed."""
    scores = score_documents(model, objective, data, statistics, documents=documents, draws=draws)
    figures = scores.figures()
    masked = "masked_" if objective == "diffusion" else ""  # the twin masks nothing
    return {
        "nats_per_token": float(figures["nats_per_token"]),
        "bits_per_byte": float(scores.nats.sum() / np.log(2) / max(1.0, scores.bytes.sum())),
        f"{masked}cross_entropy": float(figures["masked_cross_entropy"]),
        f"{masked}accuracy": float(figures["masked_accuracy"]),
    }


def likelihood(model, saved: dict, held_out: TextData, options: TextScoring, seed: int) -> dict:
    """The bound or likelihood with its interval, and how masked tokens are guessed."""
    # The length is part of the bound: 0.028 of 3.030 nats per token (docs/log/text.md).
    scores = score_documents(
        model,
        saved["objective"],
        held_out,
        saved["statistics"],
        documents=options.documents or None,
        draws=options.draws,
        seed=seed,
        estimator=options.estimator,
        progress=samples.bar_of("batch"),
    )
    bits, figures = scores.nats / math.log(2), scores.figures()
    tokens, size = scores.tokens.sum(), scores.bytes.sum()
    result = {
        "nats_per_token": figures["nats_per_token"],
        "nats_per_token_ci95": metrics.ratio_interval(scores.nats, scores.tokens),
        "bits_per_byte": bits.sum() / size,
        "bits_per_byte_ci95": metrics.ratio_interval(bits, scores.bytes),
        "perplexity_bound": math.exp(figures["nats_per_token"]),
        "length_nats_per_token": scores.length_nats.sum() / tokens,
        "masked_cross_entropy": figures["masked_cross_entropy"],
        "masked_accuracy": figures["masked_accuracy"],
        "num_documents": len(scores.nats),
        "num_tokens": int(tokens),
        "num_bytes": int(size),
        "objective": saved["objective"],
    }
    # Guesses get harder as more is masked: 1.92 nats in the first quarter, 4.63 in the last
    # (docs/log/text.md). So a mean over all levels hides much.
    if saved["objective"] == "diffusion":
        result["by_masked_share"] = by_masked_share(scores.by_level.sum(1))
    return result


def by_masked_share(levels: np.ndarray) -> list[dict]:
    """One row per quarter of the masked share. levels (4, 3): tokens, -log p, right guesses."""
    rows = []
    for quarter, (masked, cross_entropy, hits) in enumerate(levels):
        rows.append(
            {
                "share": f"{quarter / LEVELS:.2f} to {(quarter + 1) / LEVELS:.2f}",
                "cross_entropy": float(cross_entropy / max(1, masked)),
                "accuracy": float(hits / max(1, masked)),
            }
        )
    return rows


def likelihood_lines(result: dict) -> list[str]:
    """The figures of `likelihood` in lines to print."""
    bound = result["objective"] == "diffusion"
    # A bound is never called a likelihood: the true figure may be lower.
    names = ("bound", "perplexity bound", "masked tokens")
    if not bound:
        names = ("likelihood", "perplexity", "next tokens")
    low, high = result["bits_per_byte_ci95"]
    lines = [
        f"{result['num_documents']} documents, {result['num_tokens']:,} tokens, "
        f"{result['num_bytes']:,} bytes",
        f"{names[0]:<22}{result['nats_per_token']:.4f} nats per token"
        f"  ({result['length_nats_per_token']:.4f} of it for lengths)",
        f"{'':<22}{result['bits_per_byte']:.4f} bits per byte   [{low:.4f}, {high:.4f}]",
        f"{names[1]:<22}{result['perplexity_bound']:.3f} per token",
        f"{names[2]:<22}{result['masked_cross_entropy']:.4f} nats  "
        f"{100 * result['masked_accuracy']:.1f}% right",
    ]
    for row in result.get("by_masked_share", []):
        lines.append(
            f"  masked {row['share']:<14}{row['cross_entropy']:.4f} nats  "
            f"{100 * row['accuracy']:.1f}% right"
        )
    return lines
