"""Train a policy's head on demonstrations: from places, words and the robot's state to actions.

Reads   data_robot/ (--data_dir): a folder from prep_robot_demos.py; a grounder (--grounding)
Writes  checkpoints_policy/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt

Three minutes on a laptop:
    python train_policy.py --max_steps 2000
The baselines, on the same demonstrations in the same order:
    python train_policy.py --head ar --out checkpoints_policy_ar
    python train_policy.py --head l1 --out checkpoints_policy_l1
    python train_policy.py --head flow --out checkpoints_policy_flow

best.pt holds the grounder too, so run_policy.py needs no other file.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from base import files, flags
from base.config import ActorConfig, TrainConfig
from base.flags import setting
from loop import distributed, fit, recipe
from net.policy import Policy
from robot import acting, data, policies
from robot.acting import ActingBatches, ActingRun
from robot.scaling import Scaling


@dataclass
class ActingStart:
    """Data and grounder."""

    data_dir: str = setting("data_robot", "folder from prep_robot_demos.py", metavar="FOLDER")
    grounding: str = setting(
        "checkpoints_grounding/best.pt", "checkpoint of train_grounding.py", metavar="FILE"
    )

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="checkpoints_policy")
    parser.add_settings(ActingStart)
    parser.add_settings(ActingRun)
    parser.add_settings(ActorConfig, skip=("actions", "state", "order"))
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


def actor_config(setup: recipe.Setup, grounder, episodes) -> ActorConfig:
    kept = setup.resume["actor"] if setup.resume else {}
    config = flags.resolve(ActorConfig, setup.arguments, setup.file, kept)
    return dataclasses.replace(
        config,
        actions=episodes.actions.shape[1],
        state=episodes.states.shape[1],
        order=grounder.order_width,
    )


def main(argv=None):
    setup = recipe.read_run(parse_args(argv), kinds=("policy",))
    start, own, cfg = setup.own(ActingStart), setup.own(ActingRun), setup.train_config()
    robot_data = data.RobotData(start.data_dir)
    grounder, tokenizer, saved = policies.open_grounder(start.grounding)
    watcher = acting.open_watcher(
        robot_data.folder / "demos", grounder.config.sees, robot_data.cameras()
    )
    episodes = watcher.episodes
    config = actor_config(setup, grounder, episodes)
    if setup.resume:
        run = [setup.resume["data"]["fingerprint"]]
        recipe.refuse_other_data(start.data_dir, "data", [robot_data.meta["fingerprint"]], run)
    device = recipe.begin(setup, cfg, own, config, cfg)

    policy = Policy(grounder.config, config)
    policy.grounder.load_state_dict(grounder.state_dict())
    policy.to(device).eval()
    scaling = Scaling.none(config.actions, config.state)
    if not config.cartesian:
        scaling = Scaling.measured(episodes.actions, episodes.states)
    states = torch.from_numpy(scaling.plain(episodes.states).astype(np.float32))
    told = acting.told_of(policy, watcher, tokenizer, states)

    # Whole episodes are held out: neighbouring frames of an episode are nearly the same.
    few = data.held_out(len(episodes.starts))
    border = int(episodes.starts[-few])
    frames = np.arange(len(episodes))
    train = ActingBatches(told, episodes, scaling, frames[:border], cfg, config.chunk)
    val = ActingBatches(told, episodes, scaling, frames[border:], cfg, config.chunk)
    distributed.say(
        f"data: {len(episodes.starts) - few:,} demonstrations, {border:,} frames; "
        f"{few} demonstrations are held out"
    )
    objective = "ar" if config.head == "ar" else "diffusion"
    about = recipe.about("policy", objective, policy.actor.size, robot_data, scaling.to_dict(), own)
    metrics = fit.fit(
        policy.actor,
        acting.make_loss(own),
        train,
        cfg,
        setup.out,
        about=about
        | {
            "actor": flags.to_dict(config),
            "grounder": saved["grounder"],
            "eyes": grounder.state_dict(),
            "cameras": robot_data.cameras() if grounder.config.sees == "pixels" else [],
            "image_side": robot_data.meta["image_side"],
        },
        eval_fn=acting.make_eval(own, val),
        resume=setup.resume,
    )
    recipe.end(setup.out, metrics, "run_policy.py")


if __name__ == "__main__":
    files.run(main)
