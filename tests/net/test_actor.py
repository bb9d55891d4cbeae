"""The heads of a policy: bins, medians, soft targets, causality, and losses that can be computed."""

import pytest
import torch

from base.files import UserError
from base.policy_config import HEADS, ActorConfig
from net import actor, chunks
from net.actor import Actor, Condition
from net.chunks import ChunkConfig

SMALL = {"d_model": 16, "heads": 2, "layers": 1, "order": 6, "bins": 9, "chunk": 4}


def make(head="diffusion", **more) -> Actor:
    torch.manual_seed(0)
    return Actor(ActorConfig(head=head, **(SMALL | more))).eval()


def told(rows=2) -> Condition:
    torch.manual_seed(1)
    return Condition(torch.randn(rows, 2, 3), torch.randn(rows, 8), torch.randn(rows, 6))


def test_rest_and_both_ends_are_exact():
    numbers = torch.tensor([-1.0, 0.0, 1.0])
    assert actor.centres(65)[actor.to_bins(numbers, 65)].tolist() == [-1.0, 0.0, 1.0]
    every = actor.centres(9)
    assert actor.to_bins(every, 9).tolist() == list(range(9))
    assert actor.to_bins(torch.tensor([-7.0, 7.0]), 9).tolist() == [0, 8]


def test_an_even_number_of_bins_is_refused():
    with pytest.raises(UserError, match="odd"):
        ActorConfig(bins=64)


def test_soft_targets_are_a_gaussian_around_the_number():
    targets = actor.soft_targets(torch.tensor([0.0, 0.1]), 9, 0.75)
    assert torch.allclose(targets.sum(-1), torch.ones(2))
    by_hand = torch.exp(-0.5 * ((torch.arange(9) - 4.4) / 0.75) ** 2)
    assert torch.allclose(targets[1], by_hand / by_hand.sum(), atol=1e-6)


def test_the_median_splits_the_distribution():
    p = torch.tensor([[0.3, 0.3, 0.4, 0, 0], [0.6, 0, 0, 0, 0.4], [0, 0, 0, 0, 1.0]])
    chosen, action = actor.median(p.log())
    assert chosen.tolist() == [1, 0, 4]
    assert action.tolist() == [-0.5, -1.0, 1.0]


def test_the_twin_sees_only_earlier_tokens():
    model = make("ar")
    tokens = torch.randint(0, 9, (2, 4, 4))
    before = model.logits(told(), tokens)
    tokens[:, 2] = (tokens[:, 2] + 1) % 9
    after = model.logits(told(), tokens)
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-4)


def test_the_denoiser_sees_both_ways():
    model = make()
    tokens = torch.full((2, 4, 4), 9)
    before = model.logits(told(), tokens)
    tokens[:, 3] = 2
    assert not torch.allclose(before[:, 0], model.logits(told(), tokens)[:, 0], atol=1e-5)


def test_some_rows_are_masked_whole():
    rng = torch.Generator().manual_seed(0)
    tokens = torch.zeros(400, 4, 4, dtype=torch.long)
    masked = actor.hide(make(whole=0.5), tokens, rng)
    assert masked.flatten(1).any(1).all()
    share = masked.flatten(1).all(1).float().mean().item()
    assert 0.45 < share < 0.65
    assert actor.hide(make(whole=1.0), tokens, rng).all()


def test_committed_steps_are_the_first_half_at_most():
    rng = torch.Generator().manual_seed(0)
    committed = actor.draw_committed(1000, 8, 0.5, rng)
    counts = committed.sum(1)
    assert (committed == (torch.arange(8) < counts[:, None])).all()
    assert counts.max() == 4 and 450 < (counts > 0).sum() < 550
    assert not actor.draw_committed(50, 8, 0.0, rng).any()


@pytest.mark.parametrize("head", ["diffusion", "ar"])
def test_a_chunk_answers_what_was_done_before_it(head):
    """Wanted: 0, then to undo what was done. Only the committed action tells what to undo."""
    model = make(head, actions=1, chunk=2, d_model=32).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    rng = torch.Generator().manual_seed(0)
    condition = told(64)
    for _ in range(150):
        done = torch.rand(64, 1, 1, generator=rng) * 2 - 1
        executed = torch.cat([done, torch.zeros_like(done)], 1)
        wanted = torch.cat([torch.zeros_like(done), -done], 1)
        value, _ = actor.loss(model, condition, wanted, rng, executed, committed=0.5)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    model.eval()
    for done in (-0.75, 0.5):
        prefix = torch.full((64, 1, 1), done)
        made = chunks.make(model, condition, ChunkConfig(), prefix=prefix)
        assert (made[:, 1] + done).abs().mean() < 0.15


@pytest.mark.parametrize("head", HEADS)
def test_a_few_steps_lower_the_loss(head):
    """The same chunk for all: each head must learn it."""
    model = make(head).train()
    rng = torch.Generator().manual_seed(0)
    actions = torch.linspace(-1, 1, 16).view(1, 4, 4).repeat(8, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss, figures = actor.loss(model, told(8), actions, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert all(isinstance(value, float) for value in figures.values())
    # Soft targets have entropy, and flow has noise: neither can reach 0.
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


def test_the_loss_of_a_uniform_head_is_the_log_of_the_bins():
    model = make()
    torch.nn.init.zeros_(model.out.weight)
    torch.nn.init.zeros_(model.out.bias)
    loss, _ = actor.loss(model, told(), torch.zeros(2, 4, 4), torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(torch.log(torch.tensor(9.0)).item(), abs=1e-5)


def test_two_observations_tell_a_movement():
    """The action is where the state came from, which a single observation does not tell."""
    left = {}
    for frames in (1, 2):
        model = make("l1", actions=1, chunk=1, state=3, frames=frames, d_model=32).train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        rng = torch.Generator().manual_seed(0)
        for _ in range(150):
            state, before = torch.rand(2, 64, 3, generator=rng)
            places = torch.zeros(64, 2, 3)
            past = places[:, None], before[:, None]
            condition = Condition(places, state, torch.zeros(64, 6), past=past)
            value, _ = actor.loss(model, condition, (state - before)[:, None, :1], rng)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        left[frames] = value.item()
    assert left[2] < 0.1 < 0.2 < left[1]


def test_a_single_observation_has_the_weights_that_it_always_had():
    names = set(make().state_dict())
    more = set(make(frames=3).state_dict())
    assert more - names == {"ago"} and names < more
