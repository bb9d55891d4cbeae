"""Answers: the cache changes nothing, rows draw what they draw alone, history is what was said."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from base.config import SampleConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import dialogue_writer
from caption.dialogue import answer_text, encode, in_slot
from caption.dialogue_writer import (
    Answerer,
    Conversation,
    Talk,
    answer_all,
    history_slot,
    look_all,
)
from net import samplers
from net.draws import draw_tokens
from net.samplers import row_generators
from tests.test_model import open_gates, toy
from worlds import looks

SLOT, BOS, PAD, HIDDEN = 4, 10, 9, 11
TOYS = SimpleNamespace(bos=BOS, pad=PAD, mask=HIDDEN, eos=8, output_size=9)
QUESTIONS = [[[1, 2], [3], [4, 5, 6]], [[1, 2, 3, 4], [5, 6], [7]]]  # of two dialogues


def network(causal=False):
    model = toy(causal=causal, condition_width=6, max_length=40)
    open_gates(model)
    return Answerer(model, TOYS, "ar" if causal else "diffusion", SLOT)


def pictures(count=2):
    return torch.randn(count, 5, 6, generator=torch.Generator().manual_seed(0))


def talk_of(answerer, rows, settings):
    rngs = [row_generators(0, 1, row)[0] for row in rows]
    condition = answerer.model.keys_values(pictures()[rows])
    return Talk(answerer, condition, settings, rngs)


def uncached(answerer, row, settings):
    """The answers of a dialogue by plain passes over the whole row, without cache or padding."""
    model, (rng,) = answerer.model, row_generators(0, 1, row)
    condition = model.keys_values(pictures()[row : row + 1])
    past, turn, answers = [BOS], [0], []
    for number, question in enumerate(QUESTIONS[row]):
        past += question
        turn += [number] * (len(question) + SLOT)
        numbers = torch.tensor(turn)
        if answerer.objective == "ar":
            slot = [TOYS.eos] * SLOT
            draws = torch.rand(SLOT, generator=rng, dtype=torch.float64)
            for place in range(SLOT):
                logits = model(torch.tensor([past + slot[:place]]), condition=condition)[:, -1]
                draw = draws[place : place + 1]
                slot[place] = int(draw_tokens(logits, draw, settings.temperature, 1.0)[0])
                if slot[place] == TOYS.eos:
                    break
        else:
            sees = (numbers[:, None] >= numbers)[None, None]

            def denoise(slots, share, select, past=tuple(past), sees=sees):
                many = len(slots)
                tokens = torch.cat([torch.tensor([past] * many), slots], 1)
                where = torch.nn.functional.pad(select, (len(past), 0))
                return model(tokens, select=where, attend=sees, condition=condition)

            blank = torch.full((1, SLOT), HIDDEN)
            drawn = samplers.sample(denoise, blank, settings, mask_id=HIDDEN, rngs=[rng])
            slot = drawn.tokens[0].tolist()
        answers.append(slot)
        past += slot
    return answers


GREEDY = SampleConfig(sampler="confidence", temperature=0.0)
SETTINGS = {
    "entropy_bound": {"sampler": "entropy_bound", "entropy_bound": 0.5},
    "first_hitting": {"sampler": "first_hitting", "steps": 3},
    "look back": {"sampler": "confidence", "steps": 4, "revise": 1},
    "guesses": {"sampler": "left_to_right", "speculate": 2},
}


@pytest.mark.parametrize("name", [*SETTINGS, "the twin"])
@torch.no_grad()
def test_cached_answers_are_the_uncached_answers(name):
    """Token for token; two dialogues together, whose questions differ in length, and each alone."""
    answerer = network(causal=name == "the twin")
    settings = SampleConfig(temperature=1.0, **SETTINGS.get(name, {}))
    for rows in ([0, 1], [1]):
        talk = talk_of(answerer, rows, settings)
        written = []
        for turn in range(3):
            questions = [QUESTIONS[row][turn] for row in rows]
            slots = talk.ask(questions).tokens.tolist()
            talk.read(questions, slots)
            written.append(slots)
        for index, row in enumerate(rows):
            expected = uncached(answerer, row, settings)
            assert [slots[index] for slots in written] == expected


@pytest.mark.parametrize("causal", [False, True])
def test_asking_keeps_nothing(causal):
    """The same question again has the same answer; only `read` makes history."""
    talk = talk_of(network(causal), [0, 1], GREEDY)
    talk.read([[1, 2], [3]], [[4] * SLOT, [5] * SLOT])
    questions = [[6], [7, 1]]
    first, again = talk.ask(questions), talk.ask(questions)
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.log_prob, again.log_prob)
    assert talk.length.tolist() == [3 + SLOT, 2 + SLOT]


def real_network(max_length=64, count=0):
    tokenizer = Tokenizer.train(["is it red ? yes no a blue star what is there else"], 290)
    sizes = {"vocab_size": tokenizer.vocab_size, "output_size": tokenizer.output_size}
    model = toy(**sizes, condition_width=6, max_length=max_length)
    open_gates(model)
    return Answerer(model, tokenizer, "diffusion", SLOT, count)


def test_looks_are_the_first_turns():
    """Questions that nobody asked, with own answers. They are history whatever follows."""
    answerer, features, asked = real_network(count=2), pictures(2), [["is it red ?"]] * 2
    noted = look_all(answerer, features, GREEDY)
    assert [len(row) for row in noted] == [2, 2]
    written = answer_all(answerer, features, asked, GREEDY)
    without = replace(answerer, looks=0)
    long = [looks.questions(2) + row for row in asked]
    same = answer_all(without, features, long, GREEDY)
    assert same == [first + rest for first, rest in zip(noted, written, strict=True)]
    assert answer_all(without, features, asked, GREEDY) != written
    # A given history takes the place of the answers, never of the looks.
    past = [[("is it red ?", "no")]] * 2
    twice = [row * 2 for row in asked]
    given = answer_all(answerer, features, twice, GREEDY, history=past)
    assert [row[0] for row in given] == [row[0] for row in written]


def test_a_conversation_never_forgets_its_looks():
    answerer, features = real_network(48, count=2), pictures(1)
    talk = Conversation(answerer, features, GREEDY)
    assert [text for text, _ in talk.looks] == looks.questions(2)
    assert [[said for _, said in talk.looks]] == look_all(answerer, features, GREEDY)
    first = talk.ask("is it red ?")
    assert [[first]] == answer_all(answerer, features, [["is it red ?"]], GREEDY)
    for _ in range(5):
        talk.ask("is it red ?")
    assert talk.forgotten > 0 and int(talk.talk.length[0]) <= 48
    fresh = Talk(answerer, talk.condition, GREEDY, row_generators(0, 1))
    for question, ids in talk.look_ids() + talk.ids[:-1]:
        fresh.read([question], [ids])
    (again,) = dialogue_writer.answers_of(fresh.ask([talk.ids[-1][0]]), answerer.tokenizer)
    assert again.ids == talk.ids[-1][1]


def test_a_conversation_is_a_dialogue_of_own_answers():
    answerer, settings = real_network(), GREEDY
    questions = ["is it red ?", "is it blue ?"]
    features = pictures(1)
    talk = Conversation(answerer, features, settings)
    said = [talk.ask(question) for question in questions]
    (same,) = answer_all(answerer, features, [questions], settings)
    assert [answer.ids for answer in said] == [answer.ids for answer in same]
    # Another history, another answer's probability: the first turn is not ignored.
    (other,) = answer_all(
        answerer, features, [questions], settings, history=[[("is it red ?", "no")] * 2]
    )
    assert other[0].ids == same[0].ids and other[1].probability != same[1].probability


def test_the_oldest_turns_are_forgotten():
    """What is left is answered as if the dialogue had begun there."""
    answerer, settings, features = real_network(40), GREEDY, pictures(1)
    talk = Conversation(answerer, features, settings)
    for _ in range(5):
        talk.ask("is it red ?")
    assert talk.forgotten > 0 and int(talk.talk.length[0]) <= 40
    kept = talk.ids[:-1]
    fresh = Talk(answerer, talk.condition, settings, row_generators(0, 1))
    for question, answer in kept:
        fresh.read([question], [answer])
    (again,) = dialogue_writer.answers_of(fresh.ask([talk.ids[-1][0]]), answerer.tokenizer)
    assert again.ids == talk.ids[-1][1]
    with pytest.raises(UserError, match="ask a shorter question"):
        talk.ask("is it red ? " * 20)


def test_a_history_gets_the_own_note_of_the_model():
    """Unless it has a note, or the slot has no room for both."""
    tokenizer = Tokenizer.train([" yes in the top left zero one two it"] * 2, 300)

    def slot(text: str, note: str, size: int = 9) -> str:
        return answer_text(history_slot(text, note, size, tokenizer), tokenizer)

    assert slot("yes", "one two it one") == "one two it one yes"
    assert slot("it zero yes", "one two it one") == "it zero yes"
    assert slot("yes", "") == "yes"
    assert slot("in the top left", "one two it one", 8) == "in the top left"


def drawn_once(rows: list[list[int]]) -> samplers.Sample:
    """Rows whose tokens were all drawn, with certainty, in one call."""
    tokens, one = torch.tensor(rows), torch.ones(len(rows), dtype=torch.long)
    return samplers.Sample(tokens, torch.ones_like(tokens), torch.zeros(tokens.shape), 1, one, one)


SAYS = " what is there it no one two three red blue zero yes"


def test_a_note_is_no_part_of_the_answer():
    """A slot by hand: the note, the answer, and what stands behind [EOS]."""
    tokenizer = Tokenizer.train([SAYS] * 2, 300)
    ids = encode("no two no no no it two red", tokenizer)
    slot = [*ids, tokenizer.eos, *encode("blue", tokenizer)]
    drawn = drawn_once([slot])
    (answer,) = dialogue_writer.answers_of(drawn, tokenizer)
    assert (answer.note, answer.text) == ("no two no no no it two", "red")
    assert answer.ids == [*ids, *[tokenizer.eos] * (len(slot) - len(ids))]


class Repeats:
    """A talk that answers each question the same, and remembers what is read."""

    def __init__(self, text: str, tokenizer: Tokenizer, slot: int):
        self.slot = in_slot(encode(text, tokenizer), slot, tokenizer)
        self.tokenizer, self.heard = tokenizer, []

    def look(self):
        return []

    def ask(self, questions):
        return drawn_once([self.slot] * len(questions))

    def read(self, questions, answers):
        self.heard.append([answer_text(ids, self.tokenizer) for ids in answers])


def test_true_answers_stand_behind_own_notes(monkeypatch):
    """The true notes would tell which objects are meant; another dialogue's notes are its own."""
    tokenizer = Tokenizer.train([SAYS] * 2, 300)
    talk = Repeats("one no no no no it one blue", tokenizer, 12)
    monkeypatch.setattr(dialogue_writer, "begin_all", lambda *_: talk)
    answerer = SimpleNamespace(tokenizer=tokenizer, slot=12)
    asked = [["what is it", "what is there"]]
    past = [[("what is it", "red")] * 2]
    answer_all(answerer, torch.zeros(1), asked, GREEDY, history=past)
    assert talk.heard.pop() == ["one no no no no it one red"]
    other = [[("what is it", "no no no no no it zero yes")] * 2]
    answer_all(answerer, torch.zeros(1), asked, GREEDY, history=other)
    assert talk.heard.pop() == ["no no no no no it zero yes"]
    answer_all(answerer, torch.zeros(1), asked, GREEDY)
    assert talk.heard.pop() == ["one no no no no it one blue"]
