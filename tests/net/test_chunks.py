"""Chunks of actions: every head makes them, orders and calls reveal all, a prefix stays."""

import itertools
import math

import pytest
import torch

from base.policy_config import HEADS
from net import chunks
from net.actor import median
from net.chunks import ORDERS, ChunkConfig, Trace
from tests.net.test_actor import make, told


@pytest.mark.parametrize("head", HEADS)
def test_every_head_makes_chunks(head):
    actions = chunks.make(make(head), told(), ChunkConfig(calls=2))
    assert actions.shape == (2, 4, 4)
    assert actions.abs().max() <= 1


@pytest.mark.parametrize(
    "order, calls, draw", list(itertools.product(ORDERS, (1, 2, 3, 9), (0, 1)))
)
def test_each_call_reveals_whole_steps_until_all_are_there(order, calls, draw):
    cfg = ChunkConfig(calls=calls, order=order, draw=bool(draw))
    rng = torch.Generator().manual_seed(0)
    trace = Trace()
    chunks.binned(make(), told(), cfg, rng, None, trace)
    stages = trace.stages
    assert len(stages) == min(calls, 4)
    hidden_before = torch.full((2, 4), True)
    for stage in stages:
        hidden = (stage == 9).any(-1)
        assert ((stage == 9).all(-1) == hidden).all()
        assert (hidden <= hidden_before).all()
        hidden_before = hidden
    assert not hidden_before.any()


def test_the_order_of_time_goes_from_left_to_right():
    trace = Trace()
    chunks.binned(make(), told(), ChunkConfig(calls=4), torch.Generator(), None, trace)
    stages = trace.stages
    for call, stage in enumerate(stages):
        assert (stage != 9).all(-1).sum(1).tolist() == [call + 1] * 2
        assert (stage[:, : call + 1] != 9).all()


@pytest.mark.parametrize("head", HEADS)
def test_a_prefix_stays_as_it_is(head):
    prefix = torch.tensor([[[0.25, -0.5, 1.0, 0.13]], [[0.0, 0.0, 0.0, -1.0]]])
    actions = chunks.make(make(head), told(), ChunkConfig(calls=2), prefix=prefix)
    assert torch.equal(actions[:, :1], prefix)


def test_the_calls_say_what_each_call_revealed():
    trace = Trace()
    cfg = ChunkConfig(calls=3)
    chunks.make(make(), told(), cfg, prefix=torch.zeros(2, 1, 4), trace=trace)
    calls = chunks.calls_of(trace.stages, 9, given=1)
    assert calls.shape == (2, 4, 4)
    assert calls[:, :, 0].tolist() == [[0, 1, 2, 3]] * 2
    trace = Trace()
    chunks.make(make("flow"), told(), cfg, trace=trace)
    assert trace == Trace()  # numbers, no tokens


def test_a_prefix_changes_what_is_filled_behind_it():
    model = make()
    plain = chunks.make(model, told(), ChunkConfig())
    given = chunks.make(model, told(), ChunkConfig(), prefix=torch.ones(2, 2, 4))
    assert not torch.allclose(plain[:, 2:], given[:, 2:])


def test_drawn_actions_follow_the_distribution():
    log_p = torch.tensor([0.2, 0.0, 0.8]).log().expand(4000, 1, 1, 3)
    cfg = ChunkConfig(draw=True)
    chosen, actions = chunks.choose(log_p, cfg, torch.Generator().manual_seed(0))
    assert (chosen == 0).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert set(actions.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("head, calls", [("diffusion", 1), ("diffusion", 2), ("ar", 1)])
def test_the_nats_of_chunks_are_those_of_a_law(head, calls):
    """Drawn chunks of 2 steps with 3 bins: their shares are exp(-nats), and all shares sum to 1."""
    model = make(head, actions=1, chunk=2, bins=3)
    cfg = ChunkConfig(calls=calls, draw=True)
    rng = torch.Generator().manual_seed(0)
    rows = 4000
    condition = told(1).rows(torch.zeros(rows, dtype=torch.long))
    trace = Trace()
    made = chunks.make(model, condition, cfg, rng, trace=trace)[..., 0]
    law = {}
    for actions, nats in zip(made.tolist(), trace.nats.tolist(), strict=True):
        law.setdefault(tuple(actions), []).append(math.exp(-2 * nats))
    assert len(law) == 9
    assert sum(chances[0] for chances in law.values()) == pytest.approx(1, abs=1e-4)
    for chances in law.values():
        assert max(chances) - min(chances) < 1e-5
        deviation = math.sqrt(chances[0] / rows)
        assert abs(len(chances) / rows - chances[0]) < 4 * deviation


@pytest.mark.parametrize("head, calls", [("diffusion", 1), ("diffusion", 2), ("ar", 1)])
def test_the_nats_are_those_of_every_chunk_written_down(head, calls):
    """All 9 chunks of 2 steps with 3 bins: the law is computed from the logits, without `make`."""
    model = make(head, actions=1, chunk=2, bins=3)
    law = {}
    for first, second in itertools.product(range(3), range(3)):
        hidden = torch.full((1, 2, 1), 3)
        begun = torch.tensor([[[first], [3]]])
        told_first = begun if head == "ar" or calls == 2 else hidden
        p_first = model.logits(told(1), hidden).log_softmax(-1)[0, 0, 0, first]
        p_second = model.logits(told(1), told_first).log_softmax(-1)[0, 1, 0, second]
        law[first - 1.0, second - 1.0] = -(p_first + p_second).item() / 2
    assert sum(math.exp(-2 * nats) for nats in law.values()) == pytest.approx(1, abs=1e-5)
    condition = told(1).rows(torch.zeros(500, dtype=torch.long))
    trace = Trace()
    rng = torch.Generator().manual_seed(0)
    cfg = ChunkConfig(calls=calls, draw=True)
    drawn = chunks.make(model, condition, cfg, rng, trace=trace)[..., 0]
    for actions, nats in zip(drawn.tolist(), trace.nats.tolist(), strict=True):
        assert nats == pytest.approx(law[tuple(actions)], abs=1e-4)
    assert len(law) == len(set(map(tuple, drawn.tolist()))) == 9


def test_given_actions_have_no_part_in_the_nats():
    trace = Trace()
    chunks.make(make(), told(), ChunkConfig(), prefix=torch.zeros(2, 3, 4), trace=trace)
    log_p = make().logits(told(), given_row(3)).log_softmax(-1)[:, 3:]
    chosen = median(log_p)[0]
    nats = -log_p.gather(-1, chosen[..., None]).mean((1, 2, 3))
    assert torch.allclose(trace.nats, nats, atol=1e-5)
    assert torch.allclose(trace.entropy, chunks.entropy_of(log_p).mean((1, 2)), atol=1e-5)


def given_row(given: int) -> torch.Tensor:
    """Tokens of a chunk whose first steps rest and whose others are masked: (2, 4, 4)."""
    tokens = torch.full((2, 4, 4), 9)
    tokens[:, :given] = 4
    return tokens


def test_the_entropy_of_the_twin_is_of_each_step_in_its_turn():
    """Masks that no step has read yet must not move it: training never shows them to the twin."""
    model = make("ar")
    found = []
    for scale in (1.0, -3.0):
        with torch.no_grad():
            model.numbers[:, -1] *= scale
        trace = Trace()
        chunks.make(model, told(), ChunkConfig(), trace=trace)
        found.append(trace.entropy)
    assert torch.allclose(*found, atol=1e-6)
