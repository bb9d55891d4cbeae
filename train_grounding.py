"""Train a grounder: which thing an order names, where it is, and where it shall go.

Reads   data_robot/ (--data_dir): a folder from prep_robot_demos.py
Writes  checkpoints_grounding/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt

Five minutes on one busy thread, from a simulator's list of things:
    python train_grounding.py --sees state --max_steps 800
From images, 81 minutes on one busy thread:
    python train_grounding.py --max_steps 7000 --batch_size 32

train_policy.py then trains what acts on these places.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from base import files, flags, words
from base.config import TrainConfig
from base.flags import setting
from base.policy_config import GrounderConfig
from loop import fit, hardware, recipe
from net.grounder import Grounder
from robot import data, grounding, sayings, stills
from robot.grounding import GroundingRun
from robot.hearing import Hearing


@dataclass
class GroundingStart:
    """Data."""

    data_dir: str = setting("data_robot", "folder from prep_robot_demos.py", metavar="FOLDER")

    def __post_init__(self):
        flags.check(self)


# Of the architecture: what the data and --co_train decide, so no flags.
FROM_DATA = ("vocab_size", "longest", "kinds", "cameras", "sayings", "encoder_key")


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="checkpoints_grounding")
    parser.add_settings(GroundingStart)
    parser.add_settings(GroundingRun)
    parser.add_settings(GrounderConfig, skip=FROM_DATA)
    parser.add_settings(
        TrainConfig,
        max_steps=4000,
        optimizer="adamw",
        weight_decay=0.01,
        eval_every=500,
        save_every=500,
    )
    return parser.parse_args(argv)


def read_data(setup: recipe.Setup, start: GroundingStart) -> tuple[data.RobotData, GrounderConfig]:
    """The stills and the architecture. Raises UserError if a resumed run had other data."""
    robot_data = data.RobotData(start.data_dir)
    own = setup.own(GroundingRun)
    if own.co_train:
        # An arm of Meta-World sees things without names: there is nothing to say.
        robot_data.need_table("--co_train")
    kept = setup.resume["grounder"] if setup.resume else {}
    config = flags.resolve(GrounderConfig, setup.arguments, setup.file, kept)
    if config.sees == "pixels":
        robot_data.need_images()
    if config.sees == "nothing":
        raise files.UserError(
            "--sees nothing for a grounder", "something to see", "choose pixels or state"
        )
    cameras = robot_data.stills["images"].shape[1] if robot_data.has_images else 1
    config = dataclasses.replace(
        config,
        vocab_size=robot_data.tokenizer.vocab_size,
        longest=words.LONGEST,
        kinds=len(stills.KINDS),
        cameras=cameras,
        sayings=sayings.tokenizer().vocab_size if own.co_train else 0,
    )
    if setup.resume:
        run = [setup.resume["data"]["fingerprint"]]
        recipe.refuse_other_data(start.data_dir, "stills", [robot_data.meta["fingerprint"]], run)
    return robot_data, config


def main(argv=None):
    setup = recipe.read_run(parse_args(argv), kinds=("grounding",))
    start, own, cfg = setup.own(GroundingStart), setup.own(GroundingRun), setup.train_config()
    robot_data, config = read_data(setup, start)
    device = recipe.begin(setup, cfg, own, config, cfg)

    model = Grounder(config).to(device)
    if config.encoder:
        config.encoder_key = model.eyes.encoder_key
    said = sayings.Sayings(robot_data.stills) if own.co_train else None
    few = data.held_out(len(robot_data))
    numbers = np.arange(len(robot_data))
    hearing = Hearing(own.unknown, own.stray)
    train = data.StillBatches(robot_data, numbers[:-few], cfg, config.sees, hearing, said)
    val = data.StillBatches(robot_data, numbers[-few:], cfg, config.sees, hearing)
    size = model.words.reader.config
    about = recipe.about("grounding", "grounding", size, robot_data, {}, own)
    # Orders and chunks are short, which CPUs attend to faster without the fused attention.
    with hardware.short_attention(device):
        metrics = fit.fit(
            model,
            grounding.make_loss(own),
            train,
            cfg,
            setup.out,
            about=about
            | {
                "grounder": flags.to_dict(config),
                "sayings": said.tokenizer.to_json() if said else "",
            },
            eval_fn=grounding.make_eval(own, val),
            resume=setup.resume,
        )
    recipe.end(setup.out, metrics, "train_policy.py", flag="--grounding")


if __name__ == "__main__":
    files.run(main)
