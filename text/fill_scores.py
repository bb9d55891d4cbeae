"""How good a conditional model is (floor 2): its bound on what is missing, its fillings, and whether what is given matters.

All figures are on held-out pairs, with 95% intervals over documents; under torchrun each process computes its share.
The target of a pair is the text in its blanks.
The denoiser is told a blank's length and is charged -log p(length) for it, under the training pairs' histogram of the
same kind (add-one smoothed); the twin pays for the [EOS] that ends each blank. So both describe the same bytes.
"""

import dataclasses
import sys
import time
from itertools import combinations

import numpy as np
import torch
from tqdm import tqdm

from base import flags, folders, metrics
from base.config import SampleConfig
from base.files import UserError
from loop import checkpoint, distributed
from net import twin as net_twin
from text import copies, writer
from text.pairs import KINDS, Pair, PairData, arrange

SPANS = (1, 2, 3, 5, 10, 20)
EACH = 4  # samples of one prompt
FOREIGN = {
    "samples": False,
    "text": None,
    "picture": None,
    "estimator": "count",
    "step_counts": "16,64",
    "min_tokens": 200,
}  # evaluate.py's flags


def length_costs(statistics: dict, max_length: int) -> dict[str, np.ndarray]:
    """By kind, -log p(blank length) in nats for lengths 0..max_length."""
    costs = {}
    for kind, histogram in statistics["blank_lengths"].items():
        count = np.ones(max_length + 1)
        count[: len(histogram)] += histogram
        count[0] = 0.0  # no blank is empty
        with np.errstate(divide="ignore"):
            costs[kind] = -np.log(count / count.sum())
    return costs


@dataclasses.dataclass
class Reader:
    """A model and how its rows look; `lengths`: what it pays for a blank's length, None if it ends blanks itself."""

    model: torch.nn.Module
    form: str
    lengths: dict[str, np.ndarray] | None

    @classmethod
    def of(cls, model, saved: dict) -> "Reader":
        return cls(
            model,
            saved["form"],
            None
            if saved["form"] == "ar"
            else length_costs(saved["statistics"], model.config.max_length),
        )

    def nats(self, tokenizer, pair: Pair, **more) -> float:
        paid = (
            0.0
            if self.lengths is None
            else sum(float(self.lengths[pair.kind][len(blank)]) for blank in pair.blanks)
        )
        return writer.nats(self.model, tokenizer, self.form, pair, **more) + paid


@dataclasses.dataclass
class LeftReader:
    """A text twin: -log p of the blanks given all that stands to their left, and nothing else. It pays for the story's end."""

    model: torch.nn.Module

    def nats(self, tokenizer, pair: Pair, **more) -> float:
        row = arrange(pair, "context", tokenizer)
        row.free[-1] = pair.kind == "continue"
        tokens, free = (
            torch.from_numpy(part)[None].to(self.model.device) for part in (row.ids, row.free)
        )
        return float(net_twin.likelihoods(self.model, tokens, free)[0])


def with_another_condition(some: list[Pair]) -> list[Pair | None]:
    """Each pair with what is given in another document's pair of its kind and number of blanks, of like length and not longer.

    None where there is none.
    """
    result: list[Pair | None] = [None] * len(some)
    size = lambda number: sum(map(len, some[number].given))  # noqa: E731
    groups: dict[tuple, list[int]] = {}
    for number, pair in enumerate(some):
        groups.setdefault((pair.kind, len(pair.blanks)), []).append(number)
    for group in groups.values():
        group.sort(key=size)
        for place, number in enumerate(group):
            others = [
                other
                for other in reversed(group[:place])
                if some[other].document != some[number].document
            ]
            if others:
                result[number] = dataclasses.replace(some[number], given=some[others[0]].given)
    return result


def by_document(some: list[Pair], values, documents: np.ndarray) -> np.ndarray:
    """Sums of the pairs' values over each document: (N,) float64."""
    sums = np.zeros(len(documents))
    np.add.at(sums, np.searchsorted(documents, [pair.document for pair in some]), values)
    return sums


def likelihoods(
    reader: Reader, tokenizer, some: list[Pair], others: dict, draws: int, seed: int, progress
) -> dict:
    """Bits per byte of the targets of one kind of pair: the model's, under a shuffled condition and none, and other readers' beside."""
    sizes = tokenizer.token_bytes()
    documents = np.unique([pair.document for pair in some])
    size = by_document(
        some, [sum(int(sizes[blank].sum()) for blank in pair.blanks) for pair in some], documents
    )
    tokens = sum(len(blank) for pair in some for blank in pair.blanks)

    def score(one, numbered, **more) -> np.ndarray:
        bits = lambda item: one.nats(tokenizer, item[1], seed=seed + item[0], **more) / np.log(2)  # noqa: E731
        return np.array(distributed.shared(numbered, bits, progress))

    numbered = list(enumerate(some))
    mine = score(reader, numbered, draws=draws)
    bits = by_document(some, mine, documents)
    result = {
        "pairs": len(some),
        "documents": len(documents),
        "tokens": tokens,
        "bytes": int(size.sum()),
        "bits_per_byte": bits.sum() / size.sum(),
        "bits_per_byte_ci95": metrics.ratio_interval(bits, size),
        "nats_per_token": mine.sum() * np.log(2) / tokens,
    }
    swapped = [
        (number, other)
        for number, other in enumerate(with_another_condition(some))
        if other is not None
    ]
    if swapped:
        kept = [some[number] for number, _ in swapped]
        wrong = score(reader, swapped, draws=draws)
        places = np.unique([pair.document for pair in kept])
        gap = by_document(kept, wrong - mine[[number for number, _ in swapped]], places)
        under = by_document(
            kept, [sum(int(sizes[blank].sum()) for blank in pair.blanks) for pair in kept], places
        )
        result |= {
            "shuffled_gap": gap.sum() / under.sum(),
            "shuffled_gap_ci95": metrics.ratio_interval(gap, under),
            "shuffled_pairs": len(kept),
        }
    if reader.form != "ar":
        blind = by_document(some, score(reader, numbered, draws=draws, blind=True), documents)
        result |= {
            "blind_bits_per_byte": blind.sum() / size.sum(),
            "blind_bits_per_byte_ci95": metrics.ratio_interval(blind, size),
        }
    for name, other in others.items():
        theirs = by_document(some, score(other, numbered), documents)
        result |= {
            f"{name}_bits_per_byte": theirs.sum() / size.sum(),
            f"{name}_bits_per_byte_ci95": metrics.ratio_interval(theirs, size),
            f"minus_{name}": (bits - theirs).sum() / size.sum(),
            f"minus_{name}_ci95": metrics.ratio_interval(bits - theirs, size),
        }
    return result


def spans(held_out: PairData, numbers: list[int], length: int, seed: int) -> list[Pair]:
    """A blank of `length` tokens in the document of each of these pairs, somewhere between its first word and its last."""
    result = []
    for number in numbers:
        whole = held_out.pair(number).whole()
        room = len(whole) - 2 - length
        if room >= 2:
            start = int(np.random.default_rng((seed, number, length)).integers(2, room + 1))
            result.append(
                Pair(
                    [whole[:start], whole[start + length :]],
                    [whole[start : start + length]],
                    "blanks",
                    number,
                )
            )
    return result


def infilling(
    reader: Reader,
    tokenizer,
    held_out: PairData,
    numbers: list[int],
    settings: SampleConfig,
    seed: int,
    progress,
) -> dict:
    """Exact matches and token F1 on blanks of known lengths, with each blank's F1 as `scores`; the twin is told the length too."""

    def one_length(length: int) -> dict:
        asked = spans(held_out, numbers, length, seed)
        empty = [
            dataclasses.replace(pair, blanks=[np.full(length, tokenizer.mask)]) for pair in asked
        ]
        filled = []
        for first in range(0, len(empty), 16):
            filled += writer.fill(
                reader.model,
                tokenizer,
                reader.form,
                empty[first : first + 16],
                settings,
                seed=seed,
                first=first,
            )
        exact = [
            one.blanks[0] == pair.blanks[0].tolist()
            for one, pair in zip(filled, asked, strict=True)
        ]
        scores = np.array(
            [
                metrics.overlap(one.blanks[0], pair.blanks[0])
                for one, pair in zip(filled, asked, strict=True)
            ]
        )
        return (
            {
                "blanks": len(asked),
                "exact": float(np.mean(exact)),
                "exact_ci95": metrics.share_interval(sum(exact), len(exact)),
                "token_f1": float(scores.mean()),
                "token_f1_ci95": metrics.ratio_interval(scores, np.ones(len(scores))),
                "scores": scores,
            }
            if asked
            else {}
        )

    return {
        length: row
        for length, row in zip(SPANS, distributed.shared(SPANS, one_length, progress), strict=True)
        if row
    }


def sampling(
    reader: Reader,
    tokenizer,
    statistics: dict,
    prompts: list[Pair],
    settings: SampleConfig,
    seed: int,
    progress,
) -> tuple[dict, list[list[int]]]:
    """Continuations of prompts, EACH of every one: how they differ among themselves, and how long they took. With them, their ids."""

    def continuations(item: tuple[int, Pair]) -> list[np.ndarray]:
        number, pair = item
        template = writer.Template(pair.given, [None], "continue")
        written = writer.fill_template(
            reader.model,
            tokenizer,
            reader.form,
            template,
            statistics["blank_lengths"],
            settings,
            EACH,
            seed=seed + number,
            draws=1,
        )
        return [np.array(one.blanks[0], dtype=np.int64) for one in written]

    clock = time.perf_counter()
    texts = distributed.shared(enumerate(prompts), continuations, progress)
    seconds = time.perf_counter() - clock
    ones = np.ones(len(texts))
    alike = np.array(
        [np.mean([metrics.overlap(a, b) for a, b in combinations(group, 2)]) for group in texts]
    )
    same = [a.tolist() == b.tolist() for group in texts for a, b in combinations(group, 2)]
    result = {
        "prompts": len(texts),
        "samples": EACH * len(texts),
        "seconds_per_text": seconds / (EACH * len(texts)),
        "overlap": float(alike.mean()),
        "overlap_ci95": metrics.ratio_interval(alike, ones),
        "identical": float(np.mean(same)),
    }
    for n in (1, 2, 3):
        values = np.array([metrics.distinct(group, n) for group in texts])
        result |= {
            f"distinct_{n}": float(values.mean()),
            f"distinct_{n}_ci95": metrics.ratio_interval(values, ones),
        }
    return result, [text.tolist() for group in texts for text in group]


def report(
    model,
    tokenizer,
    saved: dict,
    data_dir,
    *,
    twin=None,
    judge=None,
    documents: int | None = None,
    num_prompts: int = 8,
    draws: int = 8,
    infill: SampleConfig,
    sample: SampleConfig,
    seed: int = 0,
    progress=lambda items: items,
) -> dict:
    """Everything that evaluate.py says of a conditional checkpoint; twin: (model, saved) of kind `conditional`, judge: a text twin."""
    held_out = PairData(data_dir, "val", "context")
    limit = np.unique(held_out.documents)[: documents or None].max()
    numbers = [number for number in range(len(held_out)) if held_out.documents[number] <= limit]
    some = [held_out.pair(number) for number in numbers]
    reader = Reader.of(model, saved)
    readers = {"model": (reader, saved)} | ({"twin": (Reader.of(*twin), twin[1])} if twin else {})
    others = {name: one for name, (one, _) in readers.items() if name != "model"} | (
        {"left": LeftReader(judge)} if judge is not None else {}
    )
    result: dict = {
        "form": reader.form,
        "parameters": model.num_parameters(),
        "seed": seed,
        "draws": draws,
        "kinds": {},
    }
    for kind in KINDS:
        asked = [pair for pair in some if pair.kind == kind]
        if asked:
            result["kinds"][kind] = likelihoods(
                reader, tokenizer, asked, others, draws, seed, progress
            )
    firsts = [number for number, pair in zip(numbers, some, strict=True) if pair.kind == "continue"]
    prompts = [held_out.pair(number) for number in firsts[:num_prompts]]
    written = {"human": [pair.blanks[0].tolist() for pair in prompts]}
    for name, (one, about) in readers.items():
        result[f"{name}_infilling"] = infilling(
            one, tokenizer, held_out, firsts, infill, seed, progress
        )
        result[f"{name}_samples"], written[name] = sampling(
            one, tokenizer, about["statistics"], prompts, sample, seed, progress
        )
    for length, row in result["model_infilling"].items():
        scores = row.pop("scores")
        if twin:  # of the same blanks, so the difference is that of pairs
            lead = scores - result["twin_infilling"][length].pop("scores")
            row |= {
                "minus_twin": float(lead.mean()),
                "minus_twin_ci95": metrics.ratio_interval(lead, np.ones(len(lead))),
            }
    result["copies"] = copy_rates(written, PairData(data_dir, "train", "context"))
    return result


def copy_rates(written: dict[str, list[list[int]]], train: PairData) -> dict:
    """For each name, how long the runs are that its texts share with a training document."""
    seen = copies.Copies([text for texts in written.values() for text in texts])
    for start, end in zip(train.offsets[:-1], train.offsets[1:], strict=True):
        seen.read(train.tokens[start:end].tolist())
    result, number = {}, 0
    for name, texts in written.items():
        result[name] = copies.rates([seen.runs(number + place) for place in range(len(texts))])
        number += len(texts)
    return result


def table(result: dict) -> list[str]:
    """The report as lines of Markdown."""
    sign = "" if result["form"] == "ar" else "≤ "
    interval = lambda row, name: (
        f"{row[name]:.3f} [{row[name + '_ci95'][0]:.3f}, {row[name + '_ci95'][1]:.3f}]"
        if name in row
        else ""
    )  # noqa: E731
    names = {
        "bits_per_byte": f"bits per byte of the target {sign}",
        "shuffled_gap": "+ with another prompt",
        "blind_bits_per_byte": "with none",
        "twin_bits_per_byte": "twin",
        "minus_twin": "minus twin",
        "left_bits_per_byte": "left-only twin",
    }
    names = {
        name: words
        for name, words in names.items()
        if any(name in row for row in result["kinds"].values())
    }
    lines = [
        "| kind | pairs | " + " | ".join(words.strip() for words in names.values()) + " |",
        "|" + "---|" * (len(names) + 2),
    ]
    lines += [
        f"| {kind} | {row['pairs']} | " + " | ".join(interval(row, name) for name in names) + " |"
        for kind, row in result["kinds"].items()
    ]
    who = [name for name in ("model", "twin") if f"{name}_infilling" in result]
    heads = " | ".join(f"{name}: exact | token F1" for name in who)
    heads += " | token F1 minus twin" * (len(who) > 1)
    lines += [
        "",
        f"| tokens in the blank | blanks | {heads} |",
        "|" + "---|" * heads.count("|") + "---|---|---|",
    ]
    for length, row in result["model_infilling"].items():
        cells = [
            interval(result[f"{name}_infilling"][length], figure)
            for name in who
            for figure in ("exact", "token_f1")
        ]
        cells += [interval(row, "minus_twin")] * (len(who) > 1)
        lines.append(f"| {length} | {row['blanks']} | " + " | ".join(cells) + " |")
    heads = "texts | distinct-1 | distinct-2 | distinct-3 | overlap | identical | longest copy, mean / most | tokens in copies of 16 | seconds a text"
    lines += ["", f"| {heads} |", "|" + "---|" * 9]
    for name, copied in result["copies"].items():
        row = result.get(f"{name}_samples", {})
        cells = [
            interval(row, figure)
            for figure in ("distinct_1", "distinct_2", "distinct_3", "overlap")
        ]
        cells += [
            f"{100 * row['identical']:.1f}%" if row else "",
            f"{copied['longest_copy_mean']:.1f} / {copied['longest_copy_max']:.0f}",
            f"{100 * copied['copied_share']:.1f}%",
            f"{row['seconds_per_text']:.2f}" if row else "",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def score(args, path, model, tokenizer, saved: dict) -> dict:
    """What evaluate.py does with a conditional checkpoint: read --twin and --judge, report, print the tables.

    Blanks are filled with the likeliest tokens, surest first, one a call, and looked at again if --revise says so;
    prompts are continued at temperature 0.8 unless a flag says otherwise.
    """
    held_out = PairData(args.data_dir, "val", saved["form"])
    held_out.check_tokenizer(tokenizer.fingerprint, args.data_dir, path)
    if held_out.meta["fingerprint"] != saved["data"]["fingerprint"]:
        distributed.say(
            f"note: {args.data_dir} is not the folder of pairs that this model was trained on"
        )
    beside = {}
    for flag, kind in (("twin", "conditional"), ("judge", "text")):
        if name := getattr(args, flag):
            beside[flag], its_tokenizer, about = checkpoint.open_model(
                name, model.device, kinds=(kind,)
            )
            folders.check_tokenizer(its_tokenizer.fingerprint, tokenizer.fingerprint, name)
            if about["objective"] != "ar":
                raise UserError(
                    f"{name} trained with --objective {about['objective']}",
                    "an autoregressive twin",
                    "train one with --objective ar",
                )
            beside[flag] = (beside[flag], about) if flag == "twin" else beside[flag]
    result = report(
        model,
        tokenizer,
        saved,
        args.data_dir,
        **beside,
        documents=args.documents or None,
        num_prompts=max(1, args.num_samples // EACH),
        draws=args.draws,
        infill=SampleConfig(
            sampler=args.samplers or "confidence", temperature=0.0, revise=args.revise or 0
        ),
        sample=flags.resolve(SampleConfig, args, {"temperature": 0.8}),
        seed=args.seed,
        progress=lambda items: tqdm(
            items, mininterval=0.5 if sys.stderr.isatty() else 30.0, disable=not distributed.leads()
        ),
    )
    distributed.say("\n".join(table(result)), file=sys.stdout)
    return result
