"""Training on dialogues: loss and score are the stated sums, a blind model sees no picture."""

import pytest
import torch

from base.config import ModelConfig, SampleConfig
from base.flags import to_dict
from caption import dialogue_objective, writer
from caption.dialogue import DialogueBatches, DialogueData
from caption.dialogue_objective import DialogueRun, make_eval, make_loss, on_device, statistics_of
from caption.dialogue_writer import Answerer, answer_all, look_all
from loop import checkpoint
from net import blocks, turns
from tests.test_model import open_gates


@pytest.fixture(scope="module")
def data(dialogue_folder):
    return DialogueData(dialogue_folder, "train")


def network(data, causal=False):
    torch.manual_seed(0)
    size = {"max_length": data.max_length, "d_model": 32, "heads": 2, "layers": 2}
    size |= {"vocab_size": data.tokenizer.vocab_size, "output_size": data.tokenizer.output_size}
    size |= {"condition_width": data.encoder["width"], "causal": causal}
    model = checkpoint.build_dialogue({"model": to_dict(ModelConfig(**size))})
    open_gates(model)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def test_the_loss_is_the_bound_of_the_answers(data):
    model, statistics = network(data), statistics_of(data, None)
    batch = DialogueBatches(data, 3, 1, 0)(0)[0]
    own = DialogueRun(image_dropout=0.0)
    rng = torch.Generator().manual_seed(1)
    loss, report = make_loss(own, data.tokenizer, statistics)(model, batch, rng)
    tokens, free, turn = on_device(batch, model.device)
    features = writer.standardise(batch["features"], statistics, model.device)
    rng = torch.Generator().manual_seed(1)
    torch.rand(3, generator=rng)  # the dropout's
    levels = batch["uniform"].flatten()
    noise = turns.corrupt(free, turn, levels, rng)
    denoise = turns.bind(model, turn, model.keys_values(features))
    nats, _ = blocks.masked_losses(denoise, tokens, noise.masked, data.tokenizer.mask)
    weight = turns.token_weights(noise.masked, turn, noise.weight)
    expected = (nats * weight).sum() / free.sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert report["nats_per_token"] == pytest.approx(loss.item())


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_dropped_pictures_teach_a_blind_model(data, objective):
    """With all pictures dropped the loss does not depend on them; with none dropped it does."""
    model, statistics = network(data, objective == "ar"), statistics_of(data, None)
    batch = DialogueBatches(data, 3, 1, 0)(0)[0]
    other = batch | {"features": batch["features"].flip(0)}
    for dropout, same in ((0.999999, True), (0.0, False)):
        own = DialogueRun(objective=objective, image_dropout=dropout)
        losses = [
            make_loss(own, data.tokenizer, statistics)(model, it, torch.Generator().manual_seed(0))
            for it in (batch, other)
        ]
        assert (losses[0][0].item() == losses[1][0].item()) == same


def test_what_the_twin_gets_right_is_its_greedy_answer(data):
    model, statistics = network(data, causal=True), statistics_of(data, None)
    own = DialogueRun(objective="ar", eval_dialogues=2)
    # The dialogues' answers become what this network writes, so all of them are right.
    asked = [[turn["question"] for turn in turns_[data.looks :]] for turns_ in data.turns[:2]]
    features = writer.standardise(data.features_of([0, 1]), statistics, "cpu")
    answerer = Answerer(model, data.tokenizer, "ar", data.slot, data.looks)
    greedy = SampleConfig(temperature=0.0)
    noted = look_all(answerer, features, greedy)
    said = answer_all(answerer, features, asked, greedy)
    written = [a + b for a, b in zip(noted, said, strict=True)]
    before = make_eval(own, data, statistics)(model)
    kept = data.tokens_of.clone()
    for row in range(2):
        slots = torch.tensor([answer.ids for answer in written[row]]).flatten()
        data.tokens_of[row, data.free_of[row]] = slots
    after = make_eval(own, data, statistics)(model)
    data.tokens_of = kept
    assert before["right_at_once"] < 0.5 and after["right_at_once"] == 1.0
    assert before["looks_right_at_once"] < 0.5 and after["looks_right_at_once"] == 1.0


def test_looks_are_no_answers():
    """Two dialogues of a look and two questions; without looks there is no share of them."""
    right = torch.tensor([[True, False, False], [True, True, False]])
    expected = {"right_at_once": 0.25, "looks_right_at_once": 1.0}
    assert dialogue_objective.shares(right, 1) == expected
    assert dialogue_objective.shares(right, 0) == {"right_at_once": 0.5}


def test_the_score_is_the_same_at_each_evaluation(data):
    model, statistics = network(data), statistics_of(data, None)
    assert (statistics["slot"], statistics["looks"]) == (data.slot, data.looks)
    score = make_eval(DialogueRun(eval_dialogues=4), data, statistics)
    assert score(model) == score(model)
    preview = dialogue_objective.make_preview(DialogueRun(), 0, data, statistics)(model)
    assert preview.count("\n") == 3 * (1 + data.num_turns) - 1
