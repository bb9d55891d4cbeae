"""The gate: a bundle is worth shipping only if its graphs say what the trained model says (floor 2).

Features, keys and logits are compared as largest error over largest value; the next words' distributions by their divergence,
the mean Kullback-Leibler KL(torch || bundle) over masked tokens in nats; texts token for token, through the very samplers that
generate.py and generate_caption.py use, with the same uniform numbers. All inputs are real: held-out pictures and rows.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from base.config import SampleConfig
from base.files import UserError
from base.runtime import Runner
from caption import scores as caption_scores
from caption import writer
from net import twin
from net.samplers import row_generators, sample

# precision: largest error of features (they are rounded to float16), of keys and logits, the divergence, and the least share of equal
# lengths and of equal texts: the likeliest, and drawn ones. A draw that falls between a boundary of the distribution function and the same
# one moved by the logits' error is another token, and there are as many boundaries as tokens: with 4,000, 0 to 3 of 200 captions at FP32
# (LOG.md). So at lower precisions drawn texts are shown and not judged (None): what they are drawn from is, by its divergence.
TOLERANCES = {
    "fp32": {
        "features": 2e-3,
        "logits": 1e-4,
        "divergence": 1e-6,
        "lengths": 1.0,
        "texts": 1.0,
        "drawn": 0.97,
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
CUT = 64  # tokens of a text that are compared, so that 64 rows of 256 tokens take no hour
SHARES = (0.15, 0.35, 0.55, 0.75, 1.0)  # masked shares at which logits are compared


@dataclass
class Material:
    """Real inputs. rows: ids with [BOS] and [EOS]; images (n, S, S, 3) uint8 that they belong to, or None; paths of the pictures."""

    rows: list[list[int]]
    images: np.ndarray | None = None
    paths: list = field(default_factory=list)
    records: list = field(default_factory=list)

    def first(self, count: int) -> "Material":
        return Material(
            self.rows[:count],
            None if self.images is None else self.images[:count],
            self.paths[:count],
            self.records[:count],
        )


@dataclass
class Trained:
    """What a checkpoint opens to."""

    model: torch.nn.Module
    tokenizer: object
    saved: dict
    encoder: object = None

    @property
    def objective(self) -> str:
        return self.saved["objective"]

    def features(self, images: np.ndarray) -> torch.Tensor:
        """Features as generate_caption.py has them: (B, P, width) float32."""
        return self.encoder.encode(images).half().float()

    def seen(self, features: torch.Tensor) -> torch.Tensor:
        return writer.standardise(features, self.saved["statistics"], "cpu")


def holes(
    rows: list[list[int]], tokenizer, share: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a share of their tokens masked, never [BOS] or [EOS]: (B, L) int32 and lengths (B,) int32."""
    rng, lengths = np.random.default_rng(seed), np.array([len(row) for row in rows], np.int32)
    tokens = np.full((len(rows), lengths.max()), tokenizer.pad, np.int32)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row)] = row
        where = rng.permutation(np.arange(1, max(2, len(row) - 1)))
        line[where[: max(1, round(share * len(where)))]] = tokenizer.mask
    return tokens, lengths


def cases(settings: SampleConfig, conditioned: bool, objective: str) -> dict[str, SampleConfig]:
    """The ways of sampling that the gate tries: the bundle's own, few and many steps, its own pace, with noise."""
    if objective == "ar":  # only the temperature means anything to a twin
        return {"as shipped": settings, "with noise": replace(settings, temperature=0.8)}
    base = replace(settings, temperature=0.0)
    few = {
        "4 steps": replace(base, sampler="confidence", steps=4),
        "8 steps": replace(base, sampler="confidence", steps=8),
        "until all are sure": replace(base, sampler="threshold", steps=32),
        "with noise": replace(base, sampler="confidence", steps=8, temperature=0.8),
        "random order, noise": replace(
            base, sampler="first_hitting", steps=8, temperature=1.0, revise=0
        ),
        "looking back": replace(base, revise=1),
    }
    if settings.sampler != "entropy_bound":  # else that is how it is shipped
        few["by entropy"] = replace(
            base, sampler="entropy_bound", entropy_bound=0.2, schedule="cosine", steps=32
        )
    return {
        "as shipped": settings
        if conditioned or settings.steps <= 16
        else replace(settings, steps=16),
        **few,
    }


@torch.no_grad()
def reference(
    trained: Trained, material: Material, settings: SampleConfig, seed: int
) -> list[tuple[list[int], list[int]]]:
    """What torch writes for each input: ids and the call that revealed each."""
    model, tokenizer = trained.model, trained.tokenizer
    if material.images is not None:
        seen = trained.seen(trained.features(material.images))
        return [
            (one.ids, one.step)
            for one in writer.write(model, tokenizer, trained.objective, seen, settings, seed=seed)
        ]
    if trained.objective == "ar":
        drawn = twin.sample(
            model,
            torch.full((len(material.rows), 1), tokenizer.bos),
            min(CUT, model.config.max_length),
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            rngs=row_generators(seed, len(material.rows)),
            temperature=settings.temperature,
        )
        sizes = (drawn.tokens != tokenizer.pad).sum(1).numpy()
    else:
        tokens, sizes = holes(material.rows, tokenizer, 0.6)
        drawn = sample(
            model.bind(torch.from_numpy(sizes)),
            torch.from_numpy(tokens).long(),
            settings,
            mask_id=tokenizer.mask,
            rngs=row_generators(seed, len(tokens)),
        )
    return [
        (drawn.tokens[row, :n].tolist(), drawn.step[row, :n].tolist())
        for row, n in enumerate(sizes)
    ]


def from_bundle(
    runner: Runner, material: Material, settings: SampleConfig, seed: int
) -> list[tuple[list[int], list[int]]]:
    """What the bundle writes for the same inputs."""
    if material.images is not None or runner.facts["objective"] == "ar":
        return [
            (one.ids, one.step)
            for one in runner.write(
                material.images,
                settings,
                seed=seed,
                rows=len(material.rows),
                length=min(CUT, runner.length),
            )
        ]
    tokens, sizes = holes(material.rows, runner.tokenizer, 0.6)
    filled, step, _, _ = runner.fill(tokens, sizes, {}, settings, seed)
    return [(filled[row, :n].tolist(), step[row, :n].tolist()) for row, n in enumerate(sizes)]


def scores(trained: Trained, runner: Runner, material: Material) -> dict:
    """How good the bundle's captions and torch's are on the same pictures: their truth where scenes say what is true, else BLEU-4 and CIDEr."""
    if material.images is None:
        return {}
    result, wanted = {}, ("images", "truthful", "set_exact", "bleu_4", "cider")
    for name, written in (
        ("bundle", from_bundle(runner, material, runner.settings, 0)),
        ("torch", reference(trained, material, runner.settings, 0)),
    ):
        judged = caption_scores.judge(
            [trained.tokenizer.decode(ids).strip() for ids, _ in written],
            material.records,
            "the gate's inputs",
        )
        result[name] = {key: judged[key] for key in wanted if key in judged}
    return result


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(
        np.abs(found.astype(np.float64) - expected).max() / max(1e-9, np.abs(expected).max())
    )


def divergence(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean KL(expected || found) in nats of the distributions that logits (M, V') stand for, in float64."""
    q, p = (
        torch.from_numpy(logits.astype(np.float64)).log_softmax(-1) for logits in (found, expected)
    )
    return float((p.exp() * (p - q)).sum(-1).mean())


@torch.no_grad()
def compare_numbers(trained: Trained, runner: Runner, material: Material) -> list[dict]:
    """Features, keys, values, lengths and logits of the graphs against the model's, each graph fed with torch's own inputs.

    The divergence is that of the bundle alone, from the picture on.
    """
    rows, tolerance, condition, given, own = [], runner.facts["tolerances"], None, {}, {}
    note = lambda what, found, expected, limit: rows.append(
        {"what": what, "inputs": len(found), "error": error(found, expected), "limit": limit}
    )
    if material.images is not None:
        features = trained.features(material.images)
        its_own = runner.run("encoder", {"image": material.images})[0]
        note("features", its_own, features.numpy(), tolerance["features"])
        seen = trained.seen(features)
        condition = trained.model.keys_values(seen)
        keys, values, lengths = runner.run("condition", {"features": features.numpy()})
        head = trained.model.config.d_model // trained.model.config.heads
        note(
            "keys",
            keys,
            torch.stack([k.mT for k, _ in condition], 1).numpy() * head**-0.5,
            tolerance["logits"],
        )
        note(
            "values", values, torch.stack([v for _, v in condition], 1).numpy(), tolerance["logits"]
        )
        same = (lengths == trained.model.length_logits(seen).argmax(-1).clamp(min=3).numpy()).mean()
        rows.append(
            {
                "what": "lengths",
                "inputs": len(lengths),
                "identical": float(same),
                "limit": tolerance["lengths"],
            }
        )
        given = {"keys": keys, "values": values}
        own = dict(zip(given, runner.run("condition", {"features": its_own}), strict=False))
    if trained.objective == "ar":
        return rows
    for share in SHARES:
        tokens, sizes = holes(material.rows, trained.tokenizer, share)
        hidden, real = tokens == trained.tokenizer.mask, np.arange(tokens.shape[1]) < sizes[:, None]
        part = (
            hidden.sum(1)
            / np.maximum(
                1,
                (holes(material.rows, trained.tokenizer, 1.0)[0] == trained.tokenizer.mask).sum(1),
            )
        ).astype(np.float32)
        expected = trained.model(
            torch.from_numpy(tokens).long(),
            lengths=torch.from_numpy(sizes),
            share=torch.from_numpy(part),
            condition=condition,
        ).numpy()
        state = {"tokens": tokens, "lengths": sizes, "share": part}
        found = runner.run("step", {**state, **given}, ["logits"])[0]
        note(f"logits, {share:.0%} masked", found[real], expected[real], tolerance["logits"])
        whole = (
            runner.run("step", {**state, **own}, ["logits"])[0] if own else found
        )  # from the picture on, in the bundle alone
        rows.append(
            {
                "what": f"divergence, {share:.0%} masked",
                "inputs": int(hidden.sum()),
                "limit": tolerance["divergence"],
                "error": divergence(whole[hidden], expected[hidden]),
            }
        )
    return rows


def compare_texts(
    trained: Trained, runner: Runner, material: Material, *, seed: int = 0, only: str | None = None
) -> list[dict]:
    """Whole texts, token for token; `steps`: the share in which every token was also revealed by the same call."""
    rows = []
    for name, settings in cases(
        runner.settings, material.images is not None, trained.objective
    ).items():
        if only in (None, name):
            expected, found = (
                reference(trained, material, settings, seed),
                from_bundle(runner, material, settings, seed),
            )
            pairs = list(zip(found, expected, strict=True))
            rows.append(
                {
                    "what": f"texts, {name}",
                    "inputs": len(pairs),
                    "identical": sum(a[0] == b[0] for a, b in pairs) / len(pairs),
                    "steps": sum(a == b for a, b in pairs) / len(pairs),
                    "limit": runner.facts["tolerances"][
                        "drawn" if settings.temperature else "texts"
                    ],
                }
            )
    return rows


def compare_single(trained: Trained, runner: Runner, material: Material, seed: int = 0) -> dict:
    """The single file, image in and tokens out, against torch."""
    from base.decoding import loop_inputs

    whole = np.full((len(material.images), runner.length), runner.tokenizer.mask)
    settings = replace(runner.settings, revise=0)  # one graph, one pass
    inputs = loop_inputs(settings, whole, runner.tokenizer.mask, runner.length, seed, 0)
    filled, lengths = runner.run(
        "captioner", {"image": material.images, **inputs}, ["filled", "lengths"]
    )
    expected = reference(trained, material, settings, seed)
    same = sum(
        filled[row, :n].tolist() == ids
        for row, (n, (ids, _)) in enumerate(zip(lengths, expected, strict=True))
    )
    return {
        "what": "texts, single file",
        "inputs": len(expected),
        "identical": same / len(expected),
        "limit": runner.facts["tolerances"]["texts"],
    }


def passes(row: dict) -> bool:
    """Whether a comparison is within its limit, if it has one; one that is no number is not."""
    if row["limit"] is None:
        return True
    return row["error"] <= row["limit"] if "error" in row else row["identical"] >= row["limit"]


def gate(trained: Trained, folder: Path, material: Material, seed: int = 0) -> list[dict]:
    """Every comparison. Raises UserError if one is beyond its limit."""
    rows = []
    for for_tensorrt in (False,) if trained.objective == "ar" else (False, True):
        runner = Runner(folder, for_tensorrt=for_tensorrt, threads=torch.get_num_threads())
        used = runner.facts["graphs"]
        apart = used["tensorrt"].get("step") != used["cpu"].get(
            "step"
        )  # else their numbers were compared already
        found = compare_numbers(trained, runner, material) if not for_tensorrt or apart else []
        found += compare_texts(
            trained, runner, material, seed=seed, only="as shipped" if for_tensorrt else None
        )
        if not for_tensorrt and "captioner" in runner.facts["graphs"]["cpu"]:
            found.append(compare_single(trained, runner, material, seed))
        rows += [
            {**row, "what": row["what"] + (" (step by step)" if for_tensorrt else "")}
            for row in found
        ]
    for row in rows:
        if not passes(row):
            said = (
                f"{row['identical']:.1%} equal"
                if "identical" in row
                else f"an error of {row['error']:.2e}"
            )
            raise UserError(
                f"{row['what']} with {said} over {row['inputs']} inputs",
                f"{row['limit']} of torch's",
                "nothing was written; train longer, or keep more in FP32",
            )
    return rows
