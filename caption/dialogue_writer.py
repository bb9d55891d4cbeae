"""Answers questions about pictures, turn by turn, with an exact cache.

The picture and each finished turn are read once. A finished turn never changes, so its keys and
values are final (net/turns.py). A call carries the turn alone: its question and its slot.

Rows of a batch have questions of different lengths. So a question is padded on its left, and the
slots of all rows stand in the same columns. Nobody sees the padding, and positions do not count it.

Shapes: B dialogues, Q tokens of the longest question of a turn, S tokens of a slot, M selected.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from base.config import SampleConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from caption.dialogue import answer_text, encode, in_slot
from model import Cache, Denoiser, KeysValues
from net.draws import draw_tokens
from net.samplers import Sample, row_generators, sample
from worlds import looks, notes


@dataclass
class Answerer:
    """A trained model of dialogues. objective: "diffusion", or "ar" for the twin.

    slot: S. looks: how many looks it takes before the first question (worlds/looks.py).
    """

    model: Denoiser
    tokenizer: Tokenizer
    objective: str
    slot: int
    looks: int = 0

    @classmethod
    def of(cls, model: Denoiser, tokenizer: Tokenizer, saved: dict) -> "Answerer":
        """What `checkpoint.open_model` returned, as an answerer."""
        statistics = saved["statistics"]  # checkpoints from before there were looks have none
        count = statistics.get("looks", 0)
        return cls(model, tokenizer, saved["objective"], statistics["slot"], count)


@dataclass
class Answer:
    """A written answer.

    ids: the slot's tokens, with [EOS] behind the words. text: its words, without the note before
    them. probability: of each token when it was drawn. calls: of the denoiser. note: which objects
    the answer rests on (worlds/notes.py); empty for a model that notes nothing.
    """

    ids: list[int]
    text: str
    probability: list[float]
    calls: int
    note: str = ""


class TurnCache(Cache):
    """Keys and values of finished turns. places: where the tokens of the next call stand.

    keep: whether the next call's tokens are stored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places = torch.empty(0)
        self.keep = False

    def extend(self, layer: int, k: Tensor, v: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """The stored keys and values, then k, v (m·B, H, n, head), m neighbours of each row."""
        if layer in self.layers:
            both = []
            for held, new in zip(self.layers[layer], (k, v), strict=True):
                both.append(torch.cat([held.repeat_interleave(len(new) // len(held), 0), new], 2))
            k, v = both
        if self.keep:
            self.layers[layer] = (k, v)
        return k, v

    def where(self, count: int) -> Tensor:
        """Positions of their own for each row: (B, 1, n), which heads share."""
        return self.places

    def advance(self, count: int) -> None:
        """The call said itself where its tokens stand."""

    def cut(self, columns: int) -> None:
        """Forget all columns from `columns` on."""
        for layer, (k, v) in self.layers.items():
            self.layers[layer] = (k[:, :, :columns], v[:, :, :columns])


class Talk:
    """B dialogues about B pictures. `ask` answers a question each; `read` makes a turn history.

    condition: from `keys_values`, B rows. rngs: a CPU generator per dialogue.
    """

    def __init__(
        self,
        answerer: Answerer,
        condition: list[KeysValues],
        settings: SampleConfig,
        rngs: list[torch.Generator],
    ):
        self.answerer, self.condition = answerer, condition
        self.settings, self.rngs = settings, rngs
        self.device = answerer.model.device
        self.cache = TurnCache()
        self.seen = torch.zeros(len(rngs), 0, dtype=torch.bool, device=self.device)  # columns
        self.length = torch.zeros(len(rngs), dtype=torch.long, device=self.device)  # of the rows

    def padded(self, questions: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Questions with padding on their left, and which tokens are real: (B, Q) each."""
        if not self.seen.shape[1]:  # the first turn begins with [BOS]
            questions = [[self.answerer.tokenizer.bos, *ids] for ids in questions]
        widest = max(map(len, questions))
        pad = self.answerer.tokenizer.pad
        rows = [[pad] * (widest - len(ids)) + ids for ids in questions]
        tokens = torch.tensor(rows, device=self.device)
        sizes = torch.tensor([len(ids) for ids in questions], device=self.device)
        real = torch.arange(widest, device=self.device) >= widest - sizes[:, None]
        return tokens, real

    def call(self, tokens: Tensor, real: Tensor, select: Tensor, keep: bool = False) -> Tensor:
        """Logits (M, V') of a turn behind the finished turns.

        tokens, select: (m·B, n). real: (B, n) bool. keep: tokens are history from now on.
        """
        before, count = self.seen.shape[1], tokens.shape[1]
        position = self.length[:, None] + real.long().cumsum(1) - 1
        keys = torch.cat([self.seen, real], 1)[:, None, None]  # (B, 1, 1, before + n)
        sees = keys.expand(-1, 1, count, -1)
        if self.answerer.model.config.causal:
            order = torch.arange(before + count, device=self.device)
            own = order[before:, None]
            # A place sees itself even if it is padding: a softmax over nothing would be nan.
            sees = (sees & (order <= own)) | (order == own)
        many = len(tokens) // len(real)
        self.cache.places = position.clamp(min=0).repeat_interleave(many, 0)[:, None]
        self.cache.keep = keep
        logits = self.answerer.model(
            tokens,
            select=select,
            cache=self.cache,
            attend=sees.repeat_interleave(many, 0),
            condition=self.condition,
        )
        if keep:
            self.seen = torch.cat([self.seen, real], 1)
            self.length = self.length + real.sum(1)
        return logits

    @torch.no_grad()
    def read(self, questions: list[list[int]], answers: list[list[int]]) -> None:
        """Make a turn history. answers: ids that fill their slots."""
        tokens, real = self.padded(questions)
        slots = torch.tensor(answers, device=self.device)
        real = torch.cat([real, torch.ones_like(slots, dtype=torch.bool)], 1)
        none = torch.zeros_like(real)
        self.call(torch.cat([tokens, slots], 1), real, none, keep=True)

    def look(self) -> list[list["Answer"]]:
        """Take the model's looks, and make them history. Returns the looks of each dialogue."""
        tokenizer = self.answerer.tokenizer
        result: list[list[Answer]] = [[] for _ in self.rngs]
        for question in looks.questions(self.answerer.looks):
            asked = [encode(question, tokenizer)] * len(self.rngs)
            answers = answers_of(self.ask(asked), tokenizer)
            self.read(asked, [answer.ids for answer in answers])
            for row, answer in zip(result, answers, strict=True):
                row.append(answer)
        return result

    @torch.no_grad()
    def ask(self, questions: list[list[int]]) -> Sample:
        """Answer a question in each dialogue; nothing is kept. The tokens are the slots, (B, S)."""
        tokens, real = self.padded(questions)
        if self.answerer.objective == "ar":
            return self.ask_twin(tokens, real)
        slot, tokenizer = self.answerer.slot, self.answerer.tokenizer
        blank = torch.full((len(tokens), slot), tokenizer.mask, device=self.device)
        real = torch.cat([real, torch.ones_like(blank, dtype=torch.bool)], 1)

        def denoise(slots: Tensor, share: Tensor, select: Tensor) -> Tensor:
            question = tokens.repeat_interleave(len(slots) // len(tokens), 0)
            where = torch.nn.functional.pad(select, (question.shape[1], 0))
            return self.call(torch.cat([question, slots], 1), real, where)

        return sample(denoise, blank, self.settings, mask_id=tokenizer.mask, rngs=self.rngs)

    def ask_twin(self, tokens: Tensor, real: Tensor) -> Sample:
        """Token by token until [EOS], which then fills the slot."""
        slot, eos = self.answerer.slot, self.answerer.tokenizer.eos
        held = self.seen, self.length
        written = torch.full((len(tokens), slot), eos, device=self.device)
        step, log_prob = torch.zeros_like(written), torch.zeros(written.shape)
        done = torch.zeros(len(tokens), dtype=torch.bool, device=self.device)
        # As many draws for a short answer as for a long one: neighbours then change nothing.
        draws = torch.stack(
            [torch.rand(slot, generator=rng, dtype=torch.float64) for rng in self.rngs]
        )
        for place in range(slot):
            last = torch.zeros_like(real)
            last[:, -1] = True
            logits = self.call(tokens, real, last, keep=True)  # (B, V')
            token, nats = draw_tokens(
                logits, draws[:, place], self.settings.temperature, self.settings.top_p
            )
            written[:, place] = torch.where(done, eos, token)
            step[~done, place] = place + 1
            log_prob[~done.cpu(), place] = nats.float().cpu()[~done.cpu()]
            done |= token == eos
            if done.all():
                break
            tokens = written[:, place : place + 1]
            real = torch.ones_like(tokens, dtype=torch.bool)
        self.seen, self.length = held  # the answer is history only when it is read
        self.cache.cut(self.seen.shape[1])
        used = step.amax(1).cpu()
        return Sample(written, step.cpu(), log_prob, int(used.max()), used, used)


def answers_of(drawn: Sample, tokenizer: Tokenizer) -> list[Answer]:
    """The answers of a batch. What stood behind a slot's first [EOS] was never said."""
    answers = []
    for row, ids in enumerate(drawn.tokens.tolist()):
        if tokenizer.eos in ids:
            words = ids[: ids.index(tokenizer.eos)]
            ids = words + [tokenizer.eos] * (len(ids) - len(words))
        # A token that no call drew, such as the twin's last [EOS], is certain.
        sure = torch.where(drawn.step[row] > 0, drawn.log_prob[row].exp(), 1.0)
        note, text = notes.split(answer_text(ids, tokenizer))
        answers.append(Answer(ids, text, sure.tolist(), int(drawn.used[row]), note))
    return answers


# ---- a dialogue with a person


class Conversation:
    """A dialogue about a single picture. turns: (question, Answer) pairs so far.

    features: (1, P, width), standardised. looks: (question, Answer) pairs of the looks before the
    first question; they are never forgotten. Turns that the model's rows have no room for are
    forgotten, the oldest first: `forgotten` counts them.
    """

    def __init__(self, answerer: Answerer, features: Tensor, settings: SampleConfig, seed: int = 0):
        self.answerer, self.settings = answerer, settings
        self.condition = answerer.model.keys_values(features)
        self.rngs = row_generators(seed, 1)
        self.turns: list[tuple[str, Answer]] = []
        self.ids: list[tuple[list[int], list[int]]] = []  # of the turns that are remembered
        self.talk = self.begin()
        (noted,) = self.talk.look()
        self.looks = list(zip(looks.questions(answerer.looks), noted, strict=True))

    def begin(self) -> Talk:
        return Talk(self.answerer, self.condition, self.settings, self.rngs)

    def look_ids(self) -> list[tuple[list[int], list[int]]]:
        """The ids of each look: of its question and of its slot."""
        return [(encode(text, self.answerer.tokenizer), it.ids) for text, it in self.looks]

    @property
    def forgotten(self) -> int:
        return len(self.turns) - len(self.ids)

    def ask(self, question: str) -> Answer:
        """The answer to a question, which is then part of the dialogue.

        Raises UserError for a question that is longer than a row of the model.
        """
        tokenizer = self.answerer.tokenizer
        ids = encode(question, tokenizer)
        self.make_room(len(ids))
        (answer,) = answers_of(self.talk.ask([ids]), tokenizer)
        self.talk.read([ids], [answer.ids])
        self.ids.append((ids, answer.ids))
        self.turns.append((question, answer))
        return answer

    def make_room(self, count: int) -> None:
        """Forget the oldest turns until a question of `count` tokens fits."""
        longest, slot = self.answerer.model.config.max_length, self.answerer.slot
        noted = self.look_ids()
        taken = 1 + sum(len(q) + len(a) for q, a in noted) + slot
        if taken + count > longest:
            raise UserError(
                f"a question of {count} tokens",
                f"at most {longest - taken} tokens",
                "ask a shorter question",
            )
        before = len(self.ids)
        while taken + count + sum(len(q) + len(a) for q, a in self.ids) > longest:
            self.ids.pop(0)
        if len(self.ids) < before:
            self.talk = self.begin()
            for question, answer in noted + self.ids:
                self.talk.read([question], [answer])


# ---- many dialogues


def history_slot(text: str, note: str, slot: int, tokenizer: Tokenizer) -> list[int]:
    """The ids of an answer's slot in a history: behind `note`, if the text has no note.

    A note that the slot has no room for is left out.
    """
    ids = encode(text, tokenizer)
    if note and not notes.split(text)[0]:
        both = encode(f"{note} {text}", tokenizer)
        ids = both if len(both) < slot else ids
    return in_slot(ids, slot, tokenizer)


def begin_all(
    answerer: Answerer, features: Tensor, settings: SampleConfig, seed: int, first: int
) -> Talk:
    """Dialogues about pictures, before anything is said. features: (B, P, width), standardised."""
    rngs = row_generators(seed, len(features), first)
    return Talk(answerer, answerer.model.keys_values(features), settings, rngs)


def look_all(
    answerer: Answerer, features: Tensor, settings: SampleConfig, *, seed: int = 0, first: int = 0
) -> list[list[Answer]]:
    """The looks at B pictures, those that `answer_all` takes with the same arguments."""
    return begin_all(answerer, features, settings, seed, first).look()


def answer_all(
    answerer: Answerer,
    features: Tensor,
    questions: list[list[str]],
    settings: SampleConfig,
    *,
    history: list[list[tuple[str, str]]] | None = None,
    seed: int = 0,
    first: int = 0,
) -> list[list[Answer]]:
    """The answers to the questions of B dialogues, equally many in each.

    features: (B, P, width), standardised. The model takes its own looks first. history: for each
    turn of each dialogue, the question and the answer that later turns see in its place; None: the
    question and the model's own answer. An answer without a note gets the model's own note. first:
    the number of the first dialogue, so that it draws the same in any batch.
    """
    tokenizer, slot = answerer.tokenizer, answerer.slot
    talk = begin_all(answerer, features, settings, seed, first)
    talk.look()
    result: list[list[Answer]] = [[] for _ in questions]
    turns = len(questions[0])
    for turn in range(turns):
        asked = [encode(row[turn], tokenizer) for row in questions]
        answers = answers_of(talk.ask(asked), tokenizer)
        for row, answer in zip(result, answers, strict=True):
            row.append(answer)
        if turn + 1 == turns:
            break  # nobody will see the last turn
        slots = [answer.ids for answer in answers]
        if history is not None:
            past = [row[turn] for row in history]
            asked = [encode(question, tokenizer) for question, _ in past]
            texts = [text for _, text in past]
            pairs = zip(texts, answers, strict=True)
            slots = [history_slot(text, own.note, slot, tokenizer) for text, own in pairs]
        talk.read(asked, slots)
    return result
