"""How good the answers of a model of dialogues are, and what they rest on.

The truth is `worlds.dialogues.answers`, carried out on the scene. A question is asked with the
turns before it in sight. Their answers are the model's own, as in a dialogue with a person, or the
true answers. A model that looks first (worlds/looks.py) always takes its own looks: the true looks
would tell it the scene. Its notes (worlds/notes.py) are its own too, also before true answers.
Looks and notes are scored apart, and are no questions.

Controls, on val. Each takes something away:

    no picture        the picture is all zeros, as image dropout showed it in training
    no history        each question is asked alone
    other history     the turns before are another dialogue's
    other picture     the same questions about the next dialogue's picture, with own answers; judged
                      on its scene, without the questions that this scene leaves open
    where it changes  of these, the questions whose answer is another than about the own picture

Shapes: N dialogues of T turns.
"""

import sys
from dataclasses import dataclass, field, replace

import numpy as np

from base import files, flags, metrics
from base.config import CAPTIONS, SampleConfig
from base.files import UserError
from base.flags import check, setting
from caption import writer
from caption.dialogue import DialogueData, slot_text
from caption.dialogue_writer import Answerer, answer_all, look_all
from caption.scores import check_features, open_twin, splits_of
from loop import distributed, progress
from worlds import dialogues
from worlds.consistency import contradiction
from worlds.scenes import scene_from_dict
from worlds.talk import FAMILIES

# Turns since "it" was last named, in groups: the far ones are rare. 0: the question has no "it".
DISTANCES = {"0": (0, 0), "1": (1, 1), "2-3": (2, 3), "4-6": (4, dialogues.FARTHEST)}
BATCH = 50  # dialogues answered together


@dataclass
class DialogueScoring:
    """How a model of dialogues is scored."""

    data_dir: str = setting("data_dialogues", "folder of prep_dialogue.py", metavar="FOLDER")
    splits: str | None = setting(
        None, "splits with commas between them; none: all but train (of --references: test)"
    )
    samplers: str = setting(CAPTIONS["sampler"], "how to draw: one sampler")
    twin: str | None = setting(
        None, "the twin's checkpoint, which is scored too", metavar="CHECKPOINT"
    )
    controls: bool = setting(True, "answer val without picture, without history, and so on")

    def __post_init__(self):
        check(self)


@dataclass
class Answered:
    """Answers of N dialogues and what was true. truth None: not judged. notes: of the answers."""

    answers: list[list[str]]
    truths: list[list[str | None]]
    calls: float
    notes: list[list[str]] = field(default_factory=list)


class Questions:
    """The dialogues of a split as they are asked: what a model answers in each condition."""

    def __init__(self, opened: tuple, data: DialogueData, settings: SampleConfig, seed: int):
        model, tokenizer, saved = opened
        self.answerer = Answerer.of(model, tokenizer, saved)
        self.statistics, self.data = saved["statistics"], data
        self.settings, self.seed = settings, seed
        self.turns = [turns[data.looks :] for turns in data.turns]
        self.asked = [[turn["question"] for turn in turns] for turns in self.turns]
        self.truths = [[turn["answer"] for turn in turns] for turns in self.turns]
        # The true history: (question, answer) pairs.
        self.said = [[(it["question"], it["answer"]) for it in turns] for turns in self.turns]
        self.noted = [[(it["question"], slot_text(it)) for it in turns] for turns in self.turns]

    def features(self, numbers, blind: bool = False):
        """Standardised features of dialogues `numbers`: zeros for a blind model."""
        device = self.answerer.model.device
        seen = writer.standardise(self.data.features_of(numbers), self.statistics, device)
        return seen * (0.0 if blind else 1.0)

    def answer(
        self, name: str, *, history: list | None = None, shift: int = 0, blind: bool = False
    ) -> Answered:
        """Ask everything. history: as in `answer_all`, of all dialogues; None: own answers.

        shift: whose picture is shown: of the dialogue so many further on. name: of the bar.
        """
        count = len(self.data)

        def batch(first: int):
            numbers = np.arange(first, min(first + BATCH, count))
            past = None if history is None else [history[number] for number in numbers]
            return answer_all(
                self.answerer,
                self.features((numbers + shift) % count, blind),
                [self.asked[number] for number in numbers],
                self.settings,
                history=past,
                seed=self.seed,
                first=first,
            )

        return self.gathered(name, range(0, count, BATCH), batch, self.truths)

    def alone(self, name: str) -> Answered:
        """Ask each question alone."""
        turns = len(self.asked[0])

        def batch(first: int):
            numbers = np.arange(first, min(first + BATCH // turns, len(self.data)))
            flat = answer_all(
                self.answerer,
                self.features(numbers.repeat(turns)),
                [[question] for number in numbers for question in self.asked[number]],
                self.settings,
                seed=self.seed,
                first=first * turns,
            )
            each = iter(flat)
            return [[next(each)[0] for _ in range(turns)] for _ in numbers]

        return self.gathered(name, range(0, len(self.data), BATCH // turns), batch, self.truths)

    def looked(self, name: str) -> dict:
        """The share of right looks, and of the dialogues whose looks are all right."""
        count, number_of = len(self.data), self.data.looks

        def batch(first: int):
            numbers = np.arange(first, min(first + BATCH, count))
            return look_all(
                self.answerer,
                self.features(numbers),
                self.settings,
                seed=self.seed,
                first=first,
            )

        truths = [[turn["answer"] for turn in turns[:number_of]] for turns in self.data.turns]
        answered = self.gathered(name, range(0, count, BATCH), batch, truths)
        return noted_figures(answered.answers, truths, answered.calls)

    def other_picture(self, name: str) -> tuple[Answered, Answered]:
        """The next dialogue's picture: all judged questions, and those whose answer changes."""
        answered = self.answer(name, shift=1)
        count, truths, changed = len(self.data), [], []
        for number in range(count):
            record = self.data.records[(number + 1) % count]
            found = dialogues.answers(self.asked[number], scene_from_dict(record["scene"]))
            truths.append(found)
            own = self.truths[number]
            changed.append([None if a == b else a for a, b in zip(found, own, strict=True)])
        return replace(answered, truths=truths), replace(answered, truths=changed)

    def gathered(self, name: str, starts, batch, truths) -> Answered:
        """The answers of all batches; under torchrun each process makes its share."""

        def bar(items):
            return progress.bar(items, name, unit="batch", leave=False)

        rows = sum(distributed.shared(starts, batch, bar), [])
        calls = [answer.calls for row in rows for answer in row]
        texts = [[answer.text for answer in row] for row in rows]
        notes = [[answer.note for answer in row] for row in rows]
        return Answered(texts, truths, float(np.mean(calls)), notes)


# ---- figures


def share(right: np.ndarray, asked: np.ndarray) -> dict:
    """The share of right answers, and its 95% interval. right, asked: (N, T) bool.

    The questions of a dialogue share a picture, so whole dialogues are drawn for the interval. If
    all answers are right, or none is, every draw is the same: the interval is then Wilson's.
    """
    count, hits = int(asked.sum()), int((right & asked).sum())
    figure: dict = {"questions": count}
    if not count:
        return figure
    some = asked.any(1)  # a dialogue without such a question has no share
    counts = asked[some].sum(1).astype(float)
    if 0 < hits < count:
        interval = metrics.ratio_interval((right & asked)[some].sum(1).astype(float), counts)
    else:
        interval = metrics.share_interval(hits, count)
    return figure | {"accuracy": hits / count, "accuracy_ci95": interval}


def noted_figures(said: list[list[str]], truths: list[list[str]], calls: float) -> dict:
    """The share of right looks or notes, and of the dialogues in which all are right."""
    right = np.array(said) == np.array(truths)
    every = int(right.all(1).sum())
    return {
        **share(right, np.ones_like(right)),
        "all_right": every / len(right),
        "all_right_ci95": metrics.share_interval(every, len(right)),
        "calls": calls,
    }


def figures(answered: Answered, turns: list[list[dict]]) -> dict:
    """The figures of a condition by name. turns: of the dialogues, for family and distance."""
    asked = np.array([[truth is not None for truth in row] for row in answered.truths])
    pairs = zip(answered.answers, answered.truths, strict=True)
    right = np.array([[a == b for a, b in zip(*pair, strict=True)] for pair in pairs])
    family = np.array([[turn["family"] for turn in row] for row in turns])
    distance = np.array([[turn["distance"] for turn in row] for row in turns])
    all_right = int((right & asked).all(1).sum())
    result = {"dialogues": len(turns), **share(right, asked), "calls": answered.calls}
    if asked.all():
        result["all_right"] = all_right / len(turns)
        result["all_right_ci95"] = metrics.share_interval(all_right, len(turns))
    asking = [[turn["question"] for turn in row] for row in turns]
    found = [contradiction(*pair) for pair in zip(asking, answered.answers, strict=True)]
    contradicted = sum(turn is not None for turn in found)
    result["contradictions"] = contradicted / len(turns)
    result["contradictions_ci95"] = metrics.share_interval(contradicted, len(turns))
    result["families"] = {name: share(right, asked & (family == name)) for name in FAMILIES}
    result["distances"] = {}
    for name, (low, high) in DISTANCES.items():
        where = asked & (distance >= low) & (distance <= high)
        result["distances"][name] = share(right, where)
    result["rounds"] = {}
    for index in range(asked.shape[1]):
        own = np.zeros_like(asked)
        own[:, index] = asked[:, index]
        result["rounds"][str(index + 1)] = share(right, own)
    return result


def split_figures(questions: Questions, split: str) -> dict[str, dict]:
    """A split with own answers as history, and with true answers; its looks and notes apart."""
    turns = questions.turns
    own = questions.answer(f"{split}, own answers")
    true = questions.answer(f"{split}, true answers", history=questions.said)
    result = {"own": figures(own, turns), "true": figures(true, turns)}
    if questions.data.looks:
        result["looks"] = questions.looked(f"{split}, looks")
    if questions.data.notes:
        truths = [[turn["note"] for turn in row] for row in turns]
        result["notes"] = noted_figures(own.notes, truths, own.calls)
    return result


def control_figures(questions: Questions) -> dict[str, dict]:
    """The controls by name, in the order of this file's head."""
    turns, said = questions.turns, questions.said
    # The notes of another dialogue, too: own notes are about other questions.
    others = [*questions.noted[1:], questions.noted[0]]
    swapped, changed = questions.other_picture("other picture")
    return {
        "no picture": figures(questions.answer("no picture", history=said, blind=True), turns),
        "no history": figures(questions.alone("no history"), turns),
        "other history": figures(questions.answer("other history", history=others), turns),
        "other picture": figures(swapped, turns),
        "where it changes": figures(changed, turns),
    }


def score(opened: tuple, options: DialogueScoring, settings: SampleConfig, seed: int) -> dict:
    """The figures of a model of dialogues, which are printed too.

    opened: (model, tokenizer, rest) of `checkpoint.open_model`. settings: how answers are written.
    Returns splits {split: {own, true: figures, and looks and notes of a model with them}}; twin,
    likewise; controls {name: figures}; objective; settings.
    """
    model, _, saved = opened
    splits = splits_of(options)
    settings = replace(settings, sampler=options.samplers)
    models = {"splits": opened}
    if options.twin:
        models["twin"] = open_twin(options.twin, saved, model.device, kinds=("dialogue",))
    result: dict = {"splits": {}, "objective": saved["objective"]}
    result["settings"] = flags.to_dict(settings)
    for name, each in models.items():
        for split in splits:
            questions = open_questions(each, options.data_dir, split, settings, seed)
            result.setdefault(name, {})[split] = split_figures(questions, split)
    if options.controls:
        val = open_questions(opened, options.data_dir, "val", settings, seed)
        result["controls"] = control_figures(val)
    for line in lines(result):
        distributed.say(line, file=sys.stdout)
    return result


def open_questions(
    opened: tuple, data_dir: str, split: str, settings: SampleConfig, seed: int
) -> Questions:
    """The questions of a split for a model. Raises UserError if they do not fit."""
    model, _, saved = opened
    statistics = saved["statistics"]
    notes = statistics.get("notes", False)
    values = statistics.get("values_in_notes", False)
    data = DialogueData(data_dir, split, statistics["slot"], notes, values)
    data.fit(model.config.max_length)
    check_features(data, saved)
    if notes and not data.notes:
        raise UserError(
            f"{data_dir} without notes before the answers",
            "notes, as this model writes them",
            "draw it: " + files.python("prep_dialogue.py", "--out", "FOLDER"),
        )
    looks = statistics.get("looks", 0)
    if data.looks != looks:
        raise UserError(
            f"{data_dir} with {data.looks} looks before the questions",
            f"{looks} looks, as this model takes them",
            "draw it: " + files.python("prep_dialogue.py", "--out", "FOLDER", "--looks", looks),
        )
    return Questions(opened, data, settings, seed)


# ---- tables


def named_rows(result: dict) -> list[tuple[str, dict]]:
    """The rows of the tables: a name and its figures."""
    rows = []
    for name in ("splits", "twin"):
        for split, both in result.get(name, {}).items():
            title = f"twin, {split}" if name == "twin" else split
            rows.append((f"{title}, own answers", both["own"]))
            rows.append((f"{title}, true answers", both["true"]))
    return rows + list(result.get("controls", {}).items())


def noted_rows(result: dict) -> list[list[str]]:
    """A heading, and a row for the looks and for the notes of each split."""
    rows = [["", "turns", "right", "all right", "calls"]]
    for name in ("splits", "twin"):
        for split, both in result.get(name, {}).items():
            title = f"twin, {split}" if name == "twin" else split
            for kind in ("looks", "notes"):
                if kind not in both:
                    continue
                each = both[kind]
                cells = [percent(each, whole, interval=True) for whole in ("accuracy", "all_right")]
                cells.append(f"{each['calls']:.1f}")
                rows.append([f"{title}, {kind}", str(each["questions"]), *cells])
    return rows


def percent(figure: dict, name: str = "accuracy", interval: bool = False) -> str:
    """ "97.5", or "97.5 [96.1, 98.8]"; "" if nothing was asked."""
    if not interval:
        return f"{100 * figure[name]:.1f}" if name in figure else ""
    return metrics.interval(figure, name, scale=100, digits=1)


def lines(result: dict) -> list[str]:
    """What is printed: accuracy by family and by distance, then by round, in percent."""
    heads = [*FAMILIES, *(f"it {name}" for name in DISTANCES if name != "0")]
    table = [["", "questions", "right", "all right", "contradictory", *heads, "calls"]]
    rounds: list[list[str]] = []
    for name, each in named_rows(result):
        wholes = ("accuracy", "all_right", "contradictions")
        cells = [percent(each, whole, interval=True) for whole in wholes]
        cells += [percent(each["families"][family]) for family in FAMILIES]
        cells += [percent(each["distances"][group]) for group in DISTANCES if group != "0"]
        table.append([name, str(each["questions"]), *cells, f"{each['calls']:.1f}"])
        rounds.append([name, *(percent(figure) for figure in each["rounds"].values())])
    numbers = [f"round {number}" for number in range(1, len(rounds[0]))]
    printed = [metrics.markdown(table), "", metrics.markdown([["", *numbers], *rounds])]
    looked = noted_rows(result)
    return printed + ["", metrics.markdown(looked)] if len(looked) > 1 else printed
