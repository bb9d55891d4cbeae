"""The gate: a bundle may leave only if its graphs say what the trained model says.

- Features, keys and logits are compared by their largest error, relative to the largest value.
- The distributions of the next words are compared by their divergence: the mean KL(torch || bundle)
  over masked tokens, in nats.
- Texts are compared token for token. Both sides use the same uniform numbers, and torch uses the
  samplers of generate.py and generate_caption.py.

A row of the report is a dict: what, inputs, limit, and either error (a largest error or a
divergence) or identical (a share).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from base.config import SampleConfig
from base.decoding import loop_inputs
from base.files import UserError
from base.runtime import Runner
from caption import judging, writer
from edge.graphs import SHORTEST
from edge.inputs import CUT, Material, Trained, with_holes
from loop import progress
from net import twin
from net.samplers import row_generators, sample

# Per precision: the largest error of features, and of keys and logits; the largest divergence; the
# least share of equal lengths, of equal likeliest texts, and of equal drawn texts.
#
# A tiny error of the logits moves the cumulative distribution. A random number near a boundary then
# picks another token, and there are as many boundaries as tokens. With 4,000 of them, 0 to 3 of 200
# captions differ at FP32, and 0 to 2 of 128 stories of 64 tokens (docs/log/edge.md). So at lower
# precisions drawn texts are shown and not judged (None). The divergence judges the distribution
# that they are drawn from.
TOLERANCES = {
    "fp32": {
        "features": 2e-3,
        "logits": 1e-4,
        "divergence": 1e-6,
        "lengths": 1.0,
        "texts": 1.0,
        "drawn": 0.9,
    },
    "fp16": {
        "features": 1e-2,
        "logits": 1e-2,
        "divergence": 1e-3,
        "lengths": 0.95,
        "texts": 0.95,
        "drawn": None,
    },
    "int8": {
        "features": 0.25,
        "logits": 0.25,
        "divergence": 0.01,
        "lengths": 0.9,
        "texts": 0.6,
        "drawn": None,
    },
}
SHARES = (0.15, 0.35, 0.55, 0.75, 1.0)  # masked shares at which logits are compared
HOLES = 0.6  # the masked share of a text whose holes both sides fill
FEW_STEPS = 16  # of a text model, whose own number of steps may be hundreds
SCORES = ("images", "truthful", "set_exact", "bleu_4", "cider")

Texts = list[tuple[list[int], list[int]]]  # per text: its ids, and the call that revealed each


def cases(settings: SampleConfig, conditioned: bool, objective: str) -> dict[str, SampleConfig]:
    """The ways of sampling that the gate tries, by name."""
    if objective == "ar":  # a twin reads the temperature alone
        return {"as shipped": settings, "with noise": replace(settings, temperature=0.8)}
    shipped = settings
    if not conditioned and settings.steps > FEW_STEPS:
        shipped = replace(settings, steps=FEW_STEPS)
    # The likeliest token leaves little to chance: here torch and bundle should agree in all texts.
    base = replace(settings, temperature=0.0)
    confidence = replace(base, sampler="confidence", steps=8)
    result = {
        "as shipped": shipped,
        "4 steps": replace(confidence, steps=4),
        "8 steps": confidence,
        "until all are sure": replace(base, sampler="threshold", steps=32),
        "with noise": replace(confidence, temperature=0.8),
        "random order, noise": replace(
            base, sampler="first_hitting", steps=8, temperature=1.0, revise=0
        ),
        "four guesses ahead": replace(base, sampler="confidence", speculate=4),
        "four guesses ahead, noise": replace(
            base, sampler="confidence", speculate=4, temperature=0.8, revise=0
        ),
        "looking back": replace(base, revise=1),
    }
    if settings.sampler != "entropy_bound":  # else "as shipped" has tried it
        result["by entropy"] = replace(
            base, sampler="entropy_bound", entropy_bound=0.2, schedule="cosine", steps=32
        )
    return result


@torch.no_grad()
def reference(trained: Trained, material: Material, settings: SampleConfig, seed: int) -> Texts:
    """What torch writes for each input."""
    model, tokenizer = trained.model, trained.tokenizer
    if material.images is not None:
        seen = trained.standardised(trained.features(material.images))
        captions = writer.write(model, tokenizer, trained.objective, seen, settings, seed=seed)
        return [(caption.ids, caption.step) for caption in captions]
    rngs = row_generators(seed, len(material.rows))
    if trained.objective == "ar":
        # A twin has no blanks to fill, so it writes from [BOS] on.
        drawn = twin.sample(
            model,
            torch.full((len(material.rows), 1), tokenizer.bos),
            min(CUT, model.config.max_length),
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            rngs=rngs,
            temperature=settings.temperature,
        )
        lengths = (drawn.tokens != tokenizer.pad).sum(1).numpy()
    else:
        tokens, lengths = with_holes(material.rows, tokenizer, HOLES)
        drawn = sample(
            model.bind(torch.from_numpy(lengths)),
            torch.from_numpy(tokens).long(),
            settings,
            mask_id=tokenizer.mask,
            rngs=rngs,
        )
    return as_texts(drawn.tokens, drawn.step, lengths)


def as_texts(tokens, step, lengths) -> Texts:
    """tokens, step (B, L) and lengths (B,) -> lists without the padding."""
    texts = []
    for row, length in enumerate(lengths):
        texts.append((tokens[row, :length].tolist(), step[row, :length].tolist()))
    return texts


def from_bundle(runner: Runner, material: Material, settings: SampleConfig, seed: int) -> Texts:
    """What the bundle writes for the same inputs."""
    if material.images is None and runner.facts["objective"] != "ar":
        tokens, lengths = with_holes(material.rows, runner.tokenizer, HOLES)
        filled, step, _, _ = runner.fill(tokens, lengths, {}, settings, seed)
        return as_texts(filled, step, lengths)
    written = runner.write(
        material.images,
        settings,
        seed=seed,
        rows=len(material.rows),
        length=min(CUT, runner.length),
    )
    return [(text.ids, text.step) for text in written]


def scores(trained: Trained, runner: Runner, material: Material) -> dict[str, dict]:
    """How good the bundle's captions and torch's are on the same images; {} for a text model.

    Scenes have their truth; other images have BLEU-4 and CIDEr against their references.
    """
    if material.images is None:
        return {}
    sides = {
        "bundle": from_bundle(runner, material, runner.settings, 0),
        "torch": reference(trained, material, runner.settings, 0),
    }
    result = {}
    for name, texts in sides.items():
        captions = [trained.tokenizer.decode(ids).strip() for ids, _ in texts]
        judged = judging.judge(captions, material.records, "the gate's inputs")
        result[name] = {key: judged[key] for key in SCORES if key in judged}
    return result


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, divided by the largest expected value."""
    difference = np.abs(found.astype(np.float64) - expected).max()
    return float(difference / max(1e-9, np.abs(expected).max()))


def divergence(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean KL(expected || found) in nats of the distributions of logits (M, V'), in float64."""
    # In float32, a log-probability of -10 is rounded by up to 5e-7: half of FP32's limit.
    q = torch.from_numpy(found.astype(np.float64)).log_softmax(-1)
    p = torch.from_numpy(expected.astype(np.float64)).log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def compared(what: str, found: np.ndarray, expected: np.ndarray, limit: float) -> dict:
    """A row of the report about numbers."""
    return {
        "what": what,
        "inputs": len(found),
        "error": error(found, expected),
        "limit": limit,
    }


@torch.no_grad()
def compare_condition(
    trained: Trained, runner: Runner, material: Material
) -> tuple[list[dict], list, dict, dict]:
    """Features, keys, values and lengths against the model's, each graph fed with torch's inputs.

    Returns the rows, the model's condition, the graph's condition for torch's features, and the
    graph's condition for its own features.
    """
    limits = runner.facts["tolerances"]
    features = trained.features(material.images)
    own_features = runner.run("encoder", {"image": material.images})[0]
    seen = trained.standardised(features)
    condition = trained.model.keys_values(seen)
    expected = {key: value.numpy() for key, value in trained.graph_condition(condition).items()}
    keys, values, lengths = runner.run("condition", {"features": features.numpy()})
    likeliest = trained.model.length_logits(seen).argmax(-1).clamp(min=SHORTEST).numpy()
    rows = [
        compared("features", own_features, features.numpy(), limits["features"]),
        compared("keys", keys, expected["keys"], limits["logits"]),
        compared("values", values, expected["values"], limits["logits"]),
        {
            "what": "lengths",
            "inputs": len(lengths),
            "identical": float((lengths == likeliest).mean()),
            "limit": limits["lengths"],
        },
    ]
    # The divergence starts from the image, so it must see the error of the encoder too.
    own_keys, own_values, _ = runner.run("condition", {"features": own_features})
    given = {"keys": keys, "values": values}
    return rows, condition, given, {"keys": own_keys, "values": own_values}


def masked_share(trained: Trained, material: Material, hidden: np.ndarray) -> np.ndarray:
    """The share of each row's free tokens that is masked: hidden (B, L) -> (B,) float32."""
    tokens, _ = with_holes(material.rows, trained.tokenizer, 1.0)
    free = (tokens == trained.tokenizer.mask).sum(1)
    return (hidden.sum(1) / np.maximum(1, free)).astype(np.float32)


@torch.no_grad()
def compare_numbers(trained: Trained, runner: Runner, material: Material) -> list[dict]:
    """Every graph's numbers against the model's, each graph fed with torch's own inputs.

    The divergence alone is the whole bundle's, from the image on.
    """
    rows, condition, given, own = [], None, {}, {}
    if material.images is not None:
        rows, condition, given, own = compare_condition(trained, runner, material)
    if trained.objective == "ar":
        return rows
    limits = runner.facts["tolerances"]
    for share in SHARES:
        tokens, lengths = with_holes(material.rows, trained.tokenizer, share)
        hidden = tokens == trained.tokenizer.mask  # (B, L)
        real = np.arange(tokens.shape[1]) < lengths[:, None]  # (B, L): not padding
        state = {
            "tokens": tokens,
            "lengths": lengths,
            "share": masked_share(trained, material, hidden),
        }
        expected = trained.model(
            torch.from_numpy(tokens).long(),
            lengths=torch.from_numpy(lengths),
            share=torch.from_numpy(state["share"]),
            condition=condition,
        ).numpy()
        found = runner.run("step", {**state, **given}, ["logits"])[0]
        what = f"logits, {share:.0%} masked"
        rows.append(compared(what, found[real], expected[real], limits["logits"]))
        if own:
            found = runner.run("step", {**state, **own}, ["logits"])[0]
        rows.append(
            {
                "what": f"divergence, {share:.0%} masked",
                "inputs": int(hidden.sum()),
                "limit": limits["divergence"],
                "error": divergence(found[hidden], expected[hidden]),
            }
        )
    return rows


def compare_texts(
    trained: Trained, runner: Runner, material: Material, *, seed: int = 0, only: str | None = None
) -> list[dict]:
    """Whole texts, token for token, in each of `cases` or in one of them.

    steps: the share in which the same call also revealed every token.
    """
    limits, rows = runner.facts["tolerances"], []
    tried = cases(runner.settings, material.images is not None, trained.objective)
    for name, settings in progress.bar(tried.items(), "gate", unit="case"):
        if only not in (None, name):
            continue
        expected = reference(trained, material, settings, seed)
        found = from_bundle(runner, material, settings, seed)
        pairs = list(zip(found, expected, strict=True))
        same_ids = sum(ours[0] == theirs[0] for ours, theirs in pairs)
        same_steps = sum(ours == theirs for ours, theirs in pairs)
        limit = limits["texts"]
        if settings.temperature:
            limit = drawn_limit(limits["drawn"], len(pairs))
        rows.append(
            {
                "what": f"texts, {name}",
                "inputs": len(pairs),
                "identical": same_ids / len(pairs),
                "steps": same_steps / len(pairs),
                "limit": limit,
            }
        )
    return rows


def drawn_limit(limit: float | None, texts: int) -> float | None:
    """The least share of equal drawn texts: two of a few may differ too, but not half of them."""
    if limit is None:
        return None
    return min(limit, 1 - min(2, texts // 4) / texts)


def compare_single(trained: Trained, runner: Runner, material: Material, seed: int = 0) -> dict:
    """The single file, image in and tokens out, against torch."""
    blank = np.full((len(material.images), runner.length), runner.tokenizer.mask)
    settings = replace(runner.settings, revise=0)  # the single file has no second pass
    inputs = loop_inputs(settings, blank, runner.tokenizer.mask, runner.length, seed, 0)
    inputs["image"] = material.images
    filled, lengths = runner.run("captioner", inputs, ["filled", "lengths"])
    expected = reference(trained, material, settings, seed)
    same = 0
    for row, length, (ids, _) in zip(filled, lengths, expected, strict=True):
        same += row[:length].tolist() == ids
    return {
        "what": "texts, single file",
        "inputs": len(expected),
        "identical": same / len(expected),
        "limit": runner.facts["tolerances"]["texts"],
    }


def passes(row: dict) -> bool:
    """Whether a comparison is within its limit, if it has one. NaN is beyond every limit."""
    # Below FP32 drawn texts have no limit: a draw near a boundary falls the other way
    # (docs/log/edge.md).
    if row["limit"] is None:
        return True
    if "error" in row:
        return row["error"] <= row["limit"]
    return row["identical"] >= row["limit"]


def judge(rows: list[dict]) -> None:
    """Raises UserError for the first row that is beyond its limit."""
    for row in rows:
        if passes(row):
            continue
        if "identical" in row:
            result = f"{row['identical']:.1%} equal"
        else:
            result = f"an error of {row['error']:.2e}"
        raise UserError(
            f"{row['what']} with {result} over {row['inputs']} inputs",
            f"{row['limit']} of torch's",
            "nothing was written; train longer, or keep more in FP32",
        )


def gate(
    trained: Trained, folder: Path, material: Material, seed: int = 0, adapter: str | None = None
) -> list[dict]:
    """Every comparison of the bundle in `folder`. Raises UserError if one is beyond its limit.

    adapter: the one that `trained` has merged; None: the base.
    """
    threads = torch.get_num_threads()
    runner = Runner(folder, for_tensorrt=False, threads=threads, adapter=adapter)
    rows = compare_numbers(trained, runner, material)
    rows += compare_texts(trained, runner, material, seed=seed)
    graphs = runner.facts["graphs"]
    if "captioner" in graphs["cpu"]:
        rows.append(compare_single(trained, runner, material, seed))
    if trained.objective != "ar":
        runner = Runner(folder, for_tensorrt=True, threads=threads, adapter=adapter)
        stepwise = []
        # If both step graphs are the same file, its numbers were compared above.
        if graphs["tensorrt"].get("step") != graphs["cpu"].get("step"):
            stepwise = compare_numbers(trained, runner, material)
        stepwise += compare_texts(trained, runner, material, seed=seed, only="as shipped")
        rows += [{**row, "what": row["what"] + " (step by step)"} for row in stepwise]
    judge(rows)
    return rows
