"""Train a policy on demonstrations: from what is seen, words and the robot's state to actions.

Reads   data_robot/ (--data_dir): a folder from prep_robot_demos.py; a grounder (--grounding);
        or anybody's LeRobot dataset v3.0 (--dataset), which has no grounder
Writes  checkpoints_policy/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt

Nine minutes on one busy thread:
    python train_policy.py --max_steps 2500 --d_model 96 --layers 2
The baselines, on the same demonstrations in the same order:
    python train_policy.py --head ar --out checkpoints_policy_ar
    python train_policy.py --head l1 --out checkpoints_policy_l1
    python train_policy.py --head flow --out checkpoints_policy_flow
Demonstrations of your own arm; the eyes then learn along with the actions:
    python train_policy.py --dataset my_recordings --cameras observation.images.front

best.pt holds the eyes too, so run_policy.py needs no other file.
"""

import dataclasses

import numpy as np
import torch

from base import files, flags
from base.config import TrainConfig
from base.files import UserError
from base.policy_config import ActorConfig
from base.scaling import Offsets
from loop import distributed, fit, hardware, recipe
from net.grounder import order_width
from net.policy import Policy
from robot import acting, data, sources
from robot.acting import ActingBatches, ActingRun
from robot.hearing import Hearing
from robot.sources import ActingStart, Source


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="checkpoints_policy")
    parser.add_settings(ActingStart)
    parser.add_settings(ActingRun)
    parser.add_settings(ActorConfig, skip=("actions", "state", "order", "cartesian", "hand"))
    parser.add_settings(
        TrainConfig,
        max_steps=4000,
        batch_size=256,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=0.01,
        eval_every=500,
        save_every=500,
    )
    return parser.parse_args(argv)


def actor_config(setup: recipe.Setup, source: Source) -> ActorConfig:
    """The head: flags, and the widths of the demonstrations."""
    kept = setup.resume["actor"] if setup.resume else {}
    config = flags.resolve(ActorConfig, setup.arguments, setup.file, kept)
    episodes = source.watcher.episodes
    return dataclasses.replace(
        config,
        actions=episodes.actions.shape[1],
        state=max(1, episodes.states.shape[1]),
        order=order_width(source.grounder),
        cartesian=source.cartesian,
        hand=source.hand,
    )


def refuse_other_run(
    setup: recipe.Setup, start: ActingStart, source: Source, config: ActorConfig
) -> None:
    """Raise UserError unless data, head and eyes are those of the resumed run, if there is any."""
    if setup.resume is None:
        return
    run = [setup.resume["data"]["fingerprint"]]
    recipe.refuse_other_data(start.folder, "data", [source.meta["fingerprint"]], run)
    # Refused here, because torch would name tensors and not flags, after config.json was written.
    for now, key in ((config, "actor"), (source.grounder, "grounder")):
        before = flags.from_dict(type(now), setup.resume[key], "the checkpoint")
        for name, value in flags.to_dict(now).items():
            kept = getattr(before, name)
            if value != kept:
                raise UserError(
                    f"a policy with {name} {value}, of the {key}",
                    f"{name} {kept}, of the run that is being resumed",
                    "resume with the flags of the run, or choose another --out",
                )


def make_policy(
    source: Source, config: ActorConfig, executed: np.ndarray, device: torch.device
) -> Policy:
    """The policy before its first step. A trained grounder is not trained any more."""
    policy = Policy(source.grounder, config)
    if source.cartesian and not source.absolute:
        reach = acting.reach_of(source.watcher.episodes, executed)
        policy.actor.reach.data.copy_(torch.from_numpy(reach))
    if source.eyes is not None:
        policy.grounder.load_state_dict(source.eyes.state_dict())
        policy.grounder.requires_grad_(False)
    return policy.to(device)


def split_frames(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """The frames for training and for validation: the last episodes are held out as a whole.

    Neighbouring frames of an episode are nearly the same.
    """
    episodes = source.watcher.episodes
    frames = np.arange(len(episodes))
    if len(episodes.starts) == 1:
        return frames, frames
    few = data.held_out(len(episodes.starts))
    border = int(episodes.starts[-few])
    distributed.say(
        f"data: {len(episodes.starts) - few:,} demonstrations, {border:,} frames; "
        f"{few} demonstrations are held out"
    )
    return frames[:border], frames[border:]


def kept_with(source: Source, config: ActorConfig, offsets: Offsets | None) -> dict:
    """What a checkpoint keeps, so that a policy can act without the demonstrations."""
    return {
        "actor": flags.to_dict(config),
        "grounder": flags.to_dict(source.grounder),
        "cameras": list(source.watcher.cameras),
        "image_side": source.side,
        "sayings": source.sayings,
        "absolute": source.absolute,
        "offsets": offsets.to_dict() if offsets else {},
        "world": source.meta.get("world", "table"),
        "tasks": source.meta.get("tasks") or "",
    }


def main(argv=None):
    setup = recipe.read_run(parse_args(argv), kinds=("policy",))
    start, own, cfg = setup.own(ActingStart), setup.own(ActingRun), setup.train_config()
    source = sources.open_source(start)
    config = actor_config(setup, source)
    refuse_other_run(setup, start, source, config)
    device = recipe.begin(setup, cfg, own, config, cfg)

    episodes = source.watcher.episodes
    executed = acting.executed_of(episodes)
    policy = make_policy(source, config, executed, device)
    scaling, states = source.scaled()
    given = (source.watcher, source.tokenizer, states, Hearing(own.unknown, own.stray))
    condition = acting.looked_at(*given, config.frames)
    if source.eyes is not None:
        policy.eval()
        told = acting.told_of(policy, *given)
        condition = acting.known(told, episodes, config.frames)
    parts = (condition, episodes, executed, scaling)
    offsets = source.offsets(config.chunk)
    size = (cfg, config.chunk, offsets)
    frames, held_out = split_frames(source)
    about = recipe.about(
        "policy",
        "ar" if config.head == "ar" else "diffusion",
        policy.actor.size,
        source,
        scaling.to_dict(),
        own,
    )
    # Orders and chunks are short, which CPUs attend to faster without the fused attention.
    with hardware.short_attention(device):
        metrics = fit.fit(
            policy,
            acting.make_loss(own),
            ActingBatches(*parts, frames, *size),
            cfg,
            setup.out,
            about=about | kept_with(source, config, offsets),
            eval_fn=acting.make_eval(own, ActingBatches(*parts, held_out, *size)),
            resume=setup.resume,
        )
    recipe.end(setup.out, metrics, "run_policy.py")


if __name__ == "__main__":
    files.run(main)
