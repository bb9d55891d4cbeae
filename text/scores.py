"""How good a model is on held-out rows: the bound, or the twin's exact likelihood, in one unit.

The model is given the first token of a row and predicts the rest, [EOS] included. The twin is
scored on the same tokens, but it also says where a text ends. The denoiser is told the length of
the row.
So that both describe the same raw text, the denoiser pays -log p(length) under the training rows'
histogram (add-one smoothed): about 0.02 nats per token on TinyStories.
"""

import math
import tempfile
from dataclasses import dataclass

import numpy as np

from base import metrics
from base.config import ESTIMATORS, ModelConfig, SampleConfig
from base.files import UserError
from base.flags import check, numbers, setting
from base.folders import check_tokenizer
from loop import distributed
from net import noise
from show import plots
from text import samples
from text.data import TextData, from_text
from text.document_scores import LEVELS, score_documents
from text.judge import open_judge

# The samplers of the grid in docs/log/text.md, so that a new run has the same rows.
GRID = "ancestral,first_hitting,confidence,entropy_bound,threshold,remask"
ENOUGH_LEVELS = 8  # noise levels per row while a block model trains


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
    check_estimator(model.config, options.estimator)
    if not options.samples:
        sizes = model.config.trained_sizes
        score_all = block_line if sizes else likelihood
        result = score_all(model, saved, held_out, options, seed)
        if distributed.leads():
            print("\n".join((block_lines if sizes else likelihood_lines)(result)))
        return result
    judge = open_judge(options.judge, model.device) if options.judge else None
    samplers = options.samplers
    if noise.is_other(model.config):
        # The grid is of samplers that reveal masks. Another choice is the user's, and is refused.
        samplers = "ancestral" if samplers == GRID else samplers
    cells = samples.cells(
        saved["objective"], settings, samplers, numbers("step_counts", options.step_counts)
    )
    for cell in cells:
        noise.settings_of(model.config, cell, ["sampler"])
    rows = samples.grid(
        opened, held_out, judge, cells, options.num_samples, options.min_tokens, seed
    )
    if distributed.leads():
        print(metrics.markdown(samples.table(rows)))
        if options.picture:
            plots.sampler_grid(options.picture, rows)
    return {"samples": rows, "seed": seed, "num_samples": options.num_samples}


def check_estimator(model_config: ModelConfig, estimator: str) -> None:
    """Raise UserError for a way to draw masks, for a network without masks."""
    if noise.is_other(model_config) and estimator != "count":
        raise UserError(
            f"--estimator {estimator} for a network of {model_config.noise} noise",
            "its own bound, which has one estimator",
            "leave out --estimator",
        )


def guessing(model, objective: str) -> str:
    """What comes before `cross_entropy` and `accuracy` in the names of figures."""
    if objective == "ar":
        return ""  # the twin masks nothing
    return "posterior_" if noise.is_other(model.config) else "masked_"


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
    if model.config.trained_sizes:
        return block_summary(model, data, statistics, documents, draws)
    scores = score_documents(model, objective, data, statistics, documents=documents, draws=draws)
    figures = scores.figures()
    masked = guessing(model, objective)
    return {
        "nats_per_token": float(figures["nats_per_token"]),
        "bits_per_byte": float(scores.nats.sum() / np.log(2) / max(1.0, scores.bytes.sum())),
        f"{masked}cross_entropy": float(figures["masked_cross_entropy"]),
        f"{masked}accuracy": float(figures["masked_accuracy"]),
    }


def block_summary(
    model, data: TextData, statistics: dict, documents: int | None, draws: int
) -> dict[str, float]:
    """What training logs of a block model: the mean over its block sizes, then each size."""
    every, bits = {}, []
    for size in model.config.trained_sizes:
        # A row of many blocks has many noise levels in a single draw.
        enough = max(1, min(draws, ENOUGH_LEVELS * size // data.max_length))
        scores = score_documents(
            model, "diffusion", data, statistics, documents=documents, draws=enough, block_size=size
        )
        name = f"block_{size}_nats_per_token"
        every[name] = float(scores.nats.sum() / scores.tokens.sum())
        bits.append(scores.nats.sum() / np.log(2) / max(1.0, scores.bytes.sum()))
    mean = {
        "nats_per_token": float(np.mean(list(every.values()))),
        "bits_per_byte": float(np.mean(bits)),
    }
    return mean | every


def likelihood(
    model, saved: dict, held_out: TextData, options: TextScoring, seed: int, block_size: int = 0
) -> dict:
    """The bound or likelihood with its interval, and how masked tokens are guessed.

    block_size: of a block model, which is scored in blocks of it; 0: a row is a single block.
    """
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
        block_size=block_size,
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
    if saved["objective"] == "diffusion" and not block_size:
        result["by_masked_share"] = by_masked_share(scores.by_level.sum(1))
    if noise.is_other(model.config):
        # These figures are of all free tokens at a level of noise: another name, so that nobody
        # compares them with those of masked tokens.
        names = {"masked_cross_entropy", "masked_accuracy", "by_masked_share"}
        renamed = {name: result.pop(name) for name in list(result) if name in names}
        result["noise"] = model.config.noise
        result["posterior_cross_entropy"] = renamed["masked_cross_entropy"]
        result["posterior_accuracy"] = renamed["masked_accuracy"]
        result["by_noise_share"] = renamed["by_masked_share"]
    return result


def block_line(model, saved: dict, held_out: TextData, options: TextScoring, seed: int) -> dict:
    """The figures of `likelihood` at every block size of one checkpoint.

    Raises UserError for an estimator that draws no exact counts.
    """
    if options.estimator != "count":
        raise UserError(
            f"--estimator {options.estimator} for a block model",
            "the count estimator, which masks exactly k tokens of each block",
            "leave it out",
        )
    rows = []
    for size in model.config.trained_sizes:
        row = likelihood(model, saved, held_out, options, seed, size)
        rows.append({"block_size": size, **row})
    facts = ("num_documents", "num_tokens", "num_bytes", "objective")
    return {**{name: rows[0][name] for name in facts}, "by_block_size": rows}


def block_lines(result: dict) -> list[str]:
    """The figures of `block_line` in lines to print."""
    table = [["block size", "bits per byte", "nats per token", "of it for lengths", "right"]]
    for row in result["by_block_size"]:
        table.append(
            [
                str(row["block_size"]),
                metrics.interval(row, "bits_per_byte", digits=4),
                metrics.interval(row, "nats_per_token", digits=4),
                f"{row['length_nats_per_token']:.4f}",
                f"{100 * row['masked_accuracy']:.1f}%",
            ]
        )
    counts = (
        f"{result['num_documents']} documents, {result['num_tokens']:,} tokens, "
        f"{result['num_bytes']:,} bytes"
    )
    kinds = "block size 1: the exact likelihood; larger sizes: bounds"
    return [counts, metrics.markdown(table), kinds]


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
    kind, levels = "masked", result.get("by_masked_share", [])
    if "noise" in result:
        names = ("bound", "perplexity bound", "tokens under noise")
        kind, levels = "posterior", result["by_noise_share"]
    low, high = result["bits_per_byte_ci95"]
    lines = [
        f"{result['num_documents']} documents, {result['num_tokens']:,} tokens, "
        f"{result['num_bytes']:,} bytes",
        f"{names[0]:<22}{result['nats_per_token']:.4f} nats per token"
        f"  ({result['length_nats_per_token']:.4f} of it for lengths)",
        f"{'':<22}{result['bits_per_byte']:.4f} bits per byte   [{low:.4f}, {high:.4f}]",
        f"{names[1]:<22}{result['perplexity_bound']:.3f} per token",
        f"{names[2]:<22}{result[f'{kind}_cross_entropy']:.4f} nats  "
        f"{100 * result[f'{kind}_accuracy']:.1f}% right",
    ]
    how = "noise " if "noise" in result else "masked"
    for row in levels:
        lines.append(
            f"  {how} {row['share']:<14}{row['cross_entropy']:.4f} nats  "
            f"{100 * row['accuracy']:.1f}% right"
        )
    return lines
