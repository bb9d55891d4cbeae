"""Acting: what the actor is told is what the grounder finds; chunks end with the last action."""

import numpy as np
import torch

from base import words
from base.config import TrainConfig
from base.scaling import Scaling
from robot import acting, hearing, policies
from robot.acting import ActingBatches, ActingRun
from robot.episodes import Episodes
from robot.hearing import Hearing
from tests.making.demonstrations import record


def opened(root):
    policy = policies.open_policy(root / "policy" / "best.pt", torch.device("cpu"))
    return policy, acting.open_watcher(root / "data" / "demos", "state", [])


def test_the_actor_is_told_what_the_grounder_finds(robot_world):
    own, watcher = opened(robot_world)
    states = torch.from_numpy(watcher.episodes.states)
    told = acting.told_of(own.policy, watcher, own.tokenizer, states, Hearing())
    frame = len(watcher.episodes) - 2
    ids = words.encode(own.tokenizer, [watcher.episodes.task(frame)]).astype(np.int64)
    lengths = torch.from_numpy(words.lengths(own.tokenizer, ids))
    seen = watcher.seen(np.array([frame]))
    with torch.no_grad():
        alone = own.policy.told(torch.from_numpy(ids), lengths, seen, states[frame : frame + 1])
    assert torch.allclose(told.places[frame], alone.places[0], atol=1e-5)
    assert torch.allclose(told.orders[told.task_of[frame], 0], alone.order[0], atol=1e-5)


def make_batches(root, **more) -> ActingBatches:
    own, watcher = opened(root)
    states = torch.from_numpy(watcher.episodes.states)
    told = acting.told_of(own.policy, watcher, own.tokenizer, states, Hearing())
    cfg, episodes = TrainConfig(batch_size=8, accumulate=2), watcher.episodes
    frames = np.arange(len(states))
    return ActingBatches(
        acting.known(told, episodes),
        episodes,
        acting.executed_of(episodes),
        Scaling.none(4, 8),
        frames,
        cfg,
        8,
    )


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


def test_the_first_version_of_an_instruction_is_whole_and_nouns_stay(robot_world):
    own, watcher = opened(robot_world)
    plain, task_of = acting.task_words(watcher.episodes, own.tokenizer, Hearing())
    many, _ = acting.task_words(watcher.episodes, own.tokenizer, Hearing(0.5))
    assert plain.shape[1] == 1 and many.shape[1] == acting.VERSIONS
    assert (many[:, :1] == plain).all() and len(task_of) == len(watcher.episodes)
    changed = many != plain
    assert changed[:, 1:].any(-1).mean() > 0.8
    assert (many[changed] == own.tokenizer.unk).all()
    nouns = hearing.noun_ids(own.tokenizer)[plain]
    assert not (changed & nouns).any()


def test_a_control_hears_no_word(robot_world):
    own, watcher = opened(robot_world)
    plain, _ = acting.task_words(watcher.episodes, own.tokenizer, Hearing())
    hidden, _ = acting.task_words(watcher.episodes, own.tokenizer, Hearing(1.0))
    assert hidden.shape[1] == 1
    assert ((hidden == own.tokenizer.unk) == (plain != own.tokenizer.pad)).all()


def test_training_draws_versions_and_evaluation_does_not(robot_world):
    own, watcher = opened(robot_world)
    states = torch.from_numpy(watcher.episodes.states)
    told = acting.told_of(own.policy, watcher, own.tokenizer, states, Hearing(0.5))
    cfg = TrainConfig(batch_size=64)
    episodes = watcher.episodes
    executed = acting.executed_of(episodes)
    parts = (episodes, executed, Scaling.none(4, 8), np.arange(len(states)), cfg, 8)
    batches = ActingBatches(acting.known(told, episodes), *parts)
    whole = told.orders[told.task_of, 0]
    batch = batches.batch(np.arange(len(states)))
    assert torch.equal(batch["order"], whole)
    drawn = batches(0)[0]["order"]
    far = torch.cdist(drawn, whole).min(1).values > 1e-3
    assert 0.5 < far.float().mean() <= 1


def test_batches_have_what_was_wanted_and_what_was_done(robot_world):
    batches = make_batches(robot_world)
    batch = batches.batch(np.arange(20))
    assert batch["executed"].shape == batch["actions"].shape
    # The expert is disturbed while it records.
    assert 0.05 < (batch["executed"] - batch["actions"]).abs().mean() < 0.5


def test_a_dataset_without_disturbance_did_what_it_wanted(tmp_path):
    episodes = Episodes(record(tmp_path / "demos"), cameras=[])
    assert acting.executed_of(episodes) is episodes.actions


def test_earlier_frames_stay_in_their_episode(robot_world):
    _, watcher = opened(robot_world)
    second = int(watcher.episodes.starts[1])
    frames = np.array([second, second + 1, second + 4])
    found = acting.earlier(watcher.episodes, frames, 3) - second
    assert found.tolist() == [[0, 0, 0], [0, 0, 0], [3, 2, 1]]


def test_the_reach_is_what_the_hand_moves(robot_world):
    _, watcher = opened(robot_world)
    reach = acting.reach_of(watcher.episodes, acting.executed_of(watcher.episodes))
    # A step of the table is 3 cm; the hand lags a little behind.
    assert ((reach > 0.02) & (reach < 0.031)).all()
