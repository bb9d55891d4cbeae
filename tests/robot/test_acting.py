"""Acting: what the actor is told is what the grounder finds; chunks end with the last action."""

import numpy as np
import torch

from base.config import TrainConfig
from robot import acting, policies, words
from robot.acting import ActingBatches, ActingRun
from robot.scaling import Scaling


def opened(root):
    policy = policies.open_policy(root / "policy" / "best.pt", torch.device("cpu"))
    return policy, acting.open_watcher(root / "data" / "demos", "state", [])


def test_the_actor_is_told_what_the_grounder_finds(robot_world):
    own, watcher = opened(robot_world)
    states = torch.from_numpy(watcher.episodes.states)
    told = acting.told_of(own.policy, watcher, own.tokenizer, states)
    frame = len(watcher.episodes) - 2
    ids = words.encode(own.tokenizer, [watcher.episodes.task(frame)]).astype(np.int64)
    lengths = torch.from_numpy(words.lengths(own.tokenizer, ids))
    seen = watcher.seen(np.array([frame]))
    with torch.no_grad():
        alone = own.policy.told(torch.from_numpy(ids), lengths, seen, states[frame : frame + 1])
    assert torch.allclose(told.places[frame], alone.places[0], atol=1e-5)
    assert torch.allclose(told.order[frame], alone.order[0], atol=1e-5)


def make_batches(root, **more) -> ActingBatches:
    own, watcher = opened(root)
    states = torch.from_numpy(watcher.episodes.states)
    told = acting.told_of(own.policy, watcher, own.tokenizer, states)
    cfg = TrainConfig(batch_size=8, accumulate=2)
    frames = np.arange(len(states))
    return ActingBatches(acting.known(told), watcher.episodes, Scaling.none(4, 8), frames, cfg, 8)


def test_a_chunk_repeats_the_last_action_of_its_episode(robot_world):
    batches = make_batches(robot_world)
    episodes = batches.episodes
    frame = int(episodes.starts[1]) - 3  # three frames before the end of the first episode
    actions = batches.batch(np.array([frame]))["actions"][0].numpy()
    assert np.allclose(actions[:3], episodes.actions[frame : frame + 3])
    assert (actions[3:] == actions[2]).all()
    by_reader, _ = episodes.chunk(frame, 8)
    assert (actions == by_reader).all()


def test_a_batch_is_a_function_of_the_step(robot_world):
    batches = make_batches(robot_world)
    for one, other in zip(batches(3), batches(3), strict=True):
        assert torch.equal(one["actions"], other["actions"])
        assert torch.equal(one["places"], other["places"])
    assert sum(batch["weight"] for batch in batches(3)) == 8


def test_dropout_of_the_state_keeps_the_hand(robot_world):
    own, _ = opened(robot_world)
    batch = make_batches(robot_world)(0)[0]
    before = batch["state"].clone()
    states = []
    own.policy.actor.state.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    rng = torch.Generator().manual_seed(0)
    acting.make_loss(ActingRun(state_dropout=0.99))(own.policy, batch, rng)
    assert (states[0][:, 3:] == 0).all()
    assert torch.allclose(states[0][:, :3] * own.policy.actor.config.unit, before[:, :3])
    assert torch.equal(batch["state"], before)


def test_the_score_is_the_mean_distance(robot_world):
    own, _ = opened(robot_world)
    batches = make_batches(robot_world)
    score = acting.make_eval(ActingRun(eval_frames=10_000), batches)(own.policy)
    assert 0 < score["action_error"] < 2
