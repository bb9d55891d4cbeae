"""Dialogues of a captions folder: its lines hold `turns` too (prep_dialogue.py writes them).

    turns    a list of dicts, as `worlds.dialogues.Turn.to_dict` makes them: question, answer,
             family, distance. The first turns may be of the family "look" (worlds/looks.py). The
             others may have a note (worlds/notes.py)

A row is [BOS] question answer question answer …, then padding. An answer stands in a slot of S
tokens, behind its note, and [EOS] fills the slot up. Questions are given. A turn, its question and
its slot, is a block of net/turns.py; [BOS] belongs to the first turn.

Questions and answers are encoded with a space in front. A word is then the same token wherever it
stands.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from base.files import UserError
from base.tokenizer import Tokenizer
from caption.data import REMAKE, CaptionBatches, CaptionData
from diffusion import stratified
from loop import distributed
from loop.batches import NOISE_STREAM, step_generator
from worlds import looks
from worlds.notes import begins_with_value

MAKE = "run prep_dialogue.py, or name another folder with --data_dir"
ROOM = 2  # tokens that a question may be longer than the longest question of training, on average


def spaced(text: str) -> str:
    """A question or an answer as it is encoded."""
    return " " + " ".join(text.split())


def encode(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of a question or an answer, without special tokens."""
    return tokenizer.encode(spaced(text)).tolist()


def answer_text(ids: Iterable[int], tokenizer: Tokenizer) -> str:
    """The words in a slot: what stands before its first [EOS]."""
    words: list[int] = []
    for id in ids:
        if int(id) == tokenizer.eos:
            break
        words.append(int(id))
    return tokenizer.decode(words).strip()


def in_slot(ids: list[int], slot: int, tokenizer: Tokenizer) -> list[int]:
    """An answer's ids, filled up with [EOS] to `slot` tokens. Raises UserError if it is longer."""
    if len(ids) >= slot:
        raise UserError(
            f"an answer of {len(ids)} tokens ({tokenizer.decode(ids).strip()!r})",
            f"at most {slot - 1} tokens, as in the training data",
            "train on data that hold such answers",
        )
    return ids + [tokenizer.eos] * (slot - len(ids))


def slot_text(turn: dict) -> str:
    """What stands in the slot of a turn: its note, if it has one, and its answer."""
    return " ".join([turn.get("note", ""), turn["answer"]]).strip()


def is_turn(turn) -> bool:
    """Whether an entry of `turns` has a question, its answer, its family and its distance."""
    if not isinstance(turn, dict):
        return False
    texts = [turn.get(name) for name in ("question", "answer", "family")]
    good = all(isinstance(text, str) and text for text in texts)
    return good and isinstance(turn.get("distance"), int) and isinstance(turn.get("note", ""), str)


class DialogueData(CaptionData):
    """A split of a folder with dialogues.

    turns: (N dialogues) lists of dicts. looks: how many of them, from the first on, are looks.
    notes: whether the others have notes; with notes=False given, notes are left out. values:
    whether notes begin with a value; as given, or else as they are. slot: S, of the longest answer
    of training with its note, unless it is given. tokens, turn: (N, L) int64;
    free: (N, L) bool, the slots; sizes: (N,) real tokens.
    Raises UserError as CaptionData does, and if a line has no dialogue, or another number of turns
    or of looks, or if notes are of another form than `values` says.
    """

    def __init__(
        self, folder, split: str, slot: int = 0, notes: bool = True, values: bool | None = None
    ):
        super().__init__(folder, split)
        self.turns = [record.get("turns") for record in self.records]
        good = all(isinstance(turns, list) and turns for turns in self.turns)
        if not good or not all(is_turn(turn) for turns in self.turns for turn in turns):
            raise UserError(f"{folder} without dialogues", "`turns` in every line", MAKE)
        self.num_turns = len(self.turns[0])
        if any(len(turns) != self.num_turns for turns in self.turns):
            found = f"{folder} with dialogues of several lengths"
            raise UserError(found, "dialogues of equally many turns", REMAKE)
        self.looks = self.count_looks()
        if not notes:
            self.turns = [[{**turn, "note": ""} for turn in turns] for turns in self.turns]
        self.notes = any(turn.get("note") for turn in self.every_turn())
        self.values = any(begins_with_value(turn.get("note", "")) for turn in self.every_turn())
        if self.notes and values not in (None, self.values):
            forms = {True: "notes that begin with a value", False: "notes without a value"}
            found, expected = f"{folder} with {forms[self.values]}", forms[not self.values]
            raise UserError(found, expected, "name the model's own folder, or train again")
        ids = self.encoded()
        self.slot = slot or 1 + max(len(ids[slot_text(turn)]) for turn in self.every_turn())
        self.longest_question = max(len(ids[turn["question"]]) for turn in self.every_turn())
        self.build(ids)

    def count_looks(self) -> int:
        """How many looks stand before the questions. Raises UserError if dialogues differ in it."""
        is_look = np.array([[it["family"] == looks.FAMILY for it in turns] for turns in self.turns])
        count = int(is_look[0].sum())
        all_first = is_look[:, :count].all() and not is_look[:, count:].any()
        if not all_first or count == self.num_turns:
            found = f"{self.folder} with looks that do not stand before questions"
            raise UserError(found, "equally many looks before each dialogue's questions", REMAKE)
        return count

    def every_turn(self) -> Iterable[dict]:
        return (turn for turns in self.turns for turn in turns)

    def encoded(self) -> dict[str, list[int]]:
        """The ids of every question and answer by its text."""
        texts: dict[str, None] = {}
        for turn in self.every_turn():
            texts[turn["question"]] = texts[slot_text(turn)] = None
        every = self.tokenizer.encode_batch([spaced(text) for text in texts])
        return dict(zip(texts, (ids.tolist() for ids in every), strict=True))

    def build(self, ids: dict[str, list[int]]) -> None:
        """Fill tokens, turn, free and sizes."""
        tokens, numbers, free = [], [], []
        for turns in self.turns:
            row, number, is_free = [self.tokenizer.bos], [0], [False]
            for index, turn in enumerate(turns):
                question = ids[turn["question"]]
                row += question + in_slot(ids[slot_text(turn)], self.slot, self.tokenizer)
                number += [index] * (len(question) + self.slot)
                is_free += [False] * len(question) + [True] * self.slot
            tokens.append(torch.tensor(row))
            numbers.append(torch.tensor(number))
            free.append(torch.tensor(is_free))
        pad = torch.nn.utils.rnn.pad_sequence
        self.tokens_of = pad(tokens, batch_first=True, padding_value=self.tokenizer.pad)
        self.turn_of = pad(numbers, batch_first=True, padding_value=-1)
        self.free_of = pad(free, batch_first=True)
        self.sizes = np.array([len(row) for row in tokens])

    @property
    def max_length(self) -> int:
        """Tokens of a row in which every question is as long as the longest, and a little more."""
        return 1 + self.num_turns * (self.longest_question + ROOM + self.slot)

    def fit(self, max_length: int) -> "DialogueData":
        """This split. Raises UserError if a model's rows are too short for it."""
        if self.sizes.max() > max_length:
            raise UserError(
                f"a dialogue of {self.sizes.max()} tokens in {self.folder}",
                f"at most {max_length}, the model's max_length",
                "raise --max_length, or choose other data",
            )
        return self

    def dialogues(self, numbers, pad_multiple: int = 1) -> dict:
        """Dialogues `numbers` (B,), padded to the longest of them.

        Returns tokens and turn (B, L) int64, free (B, L) bool, features (B, P, width) float16,
        lengths (B,) int64, and weight, the number of tokens that the loss counts.
        """
        numbers = np.asarray(numbers)
        longest = -(-int(self.sizes[numbers].max()) // pad_multiple) * pad_multiple
        batch = {
            "tokens": self.tokens_of[numbers, :longest],
            "turn": self.turn_of[numbers, :longest],
            "free": self.free_of[numbers, :longest],
        }
        batch["lengths"] = torch.from_numpy(self.sizes[numbers])
        batch["features"] = self.features_of(numbers)
        batch["weight"] = float(batch["free"].sum())
        return batch


def turns_of(turn: Tensor) -> Tensor:
    """Where questions and answers stand, without [BOS] and padding. turn, and this: (B, L)."""
    is_said = turn >= 0
    is_said[:, 0] = False
    return is_said


class DialogueBatches(CaptionBatches):
    """batches(step): the micro-batches of a step for this process, a pure function of (seed, step).

    Each epoch shows every dialogue once. Each micro-batch has `uniform` (B, T) float64: the noise
    level of each turn, stratified over all turns of the step.

    question_share: the share of the dialogues whose questions are free too.
    """

    data: DialogueData

    def __init__(
        self,
        data,
        batch_size: int,
        accumulate: int,
        seed: int,
        pad_multiple: int = 1,
        question_share: float = 0.0,
    ):
        super().__init__(data, batch_size, accumulate, seed, 1, pad_multiple)
        self.question_share = question_share

    def __call__(self, step: int) -> list[dict]:
        numbers = self.images_of(step)
        turns = self.data.num_turns
        rng = step_generator(self.seed, step, NOISE_STREAM)
        levels = stratified(len(numbers) * turns, rng).view(-1, turns)
        asks = torch.rand(len(numbers), generator=rng) < self.question_share
        # Short dialogues go together, because padding is wasted work.
        order = np.argsort(self.data.sizes[numbers], kind="stable")
        parts = np.array_split(order, min(self.accumulate, len(numbers)))
        result = []
        for part, where in distributed.deal(parts):
            batch = self.data.dialogues(numbers[part], self.pad_multiple)
            batch["free"] = batch["free"] | (asks[part][:, None] & turns_of(batch["turn"]))
            batch["weight"] = float(batch["free"].sum())
            result.append(batch | where | {"uniform": levels[part]})
        return result
