"""Let a policy act at the table: closed loop, with controls, figures, and a page to look at.

Reads   checkpoints_policy/best.pt (--checkpoint): a checkpoint of train_policy.py; or its bundle
Writes  nothing, or figures (--json) and a page with the episodes as clips (--html)

Twenty episodes on a laptop, in about ten seconds:
    python run_policy.py --episodes 20 --splits val
The figures of docs/robot.md, a quarter of an hour on one busy thread:
    python run_policy.py --episodes 200 --splits val,held_pair,held_relation,held_wording
A page with twelve episodes of each split, whose chunks are made in eight calls:
    python run_policy.py --calls 8 --order confidence --html episodes.html
The controls:
    python run_policy.py --control no_words
    python run_policy.py --control no_image
    python run_policy.py --control swapped
An order of your own:
    python run_policy.py --instruction "put the red star behind the blue cross" --splits val
Meta-World, for a policy that learned there:
    python run_policy.py --splits ten --episodes 10 --execute 8
What it sees, in words, for a policy whose grounder was trained with --co_train:
    python run_policy.py --splits val --say
The bundle of a policy, on the same episodes (docs/robot.md):
    python run_policy.py --bundle bundle_policy
Under a delay of two control steps, with the committed actions kept:
    python run_policy.py --delay 2 --while_waiting frozen
The policy on another machine, behind serve_policy.py (docs/robot.md):
    python run_policy.py --server ws://127.0.0.1:8000

It needs `pip install -r requirements-robot.txt`.
"""

import dataclasses
import sys
from dataclasses import dataclass

import torch

from base import files, flags, metrics
from base.driving import DriveConfig, Driver
from base.errors import UserError
from base.flags import setting
from base.policy_runner import BundleMaker
from base.remote import Calling, RemoteMaker, plain_facts
from loop.hardware import choose_device
from net.chunks import ChunkConfig
from robot import metaworld_scores, policies, scores
from robot.film import Film
from robot.scores import Trial
from robot.writer import TorchMaker
from show import rollouts
from worlds.so101 import SO101Env
from worlds.table import TableEnv

CHUNKS = ("calls", "order", "draw", "temperature")  # how chunks are made
Maker = TorchMaker | BundleMaker | RemoteMaker
WIDTHS = {"table": (4, 8), "so101": (6, 10), "metaworld": (4, 4)}  # of an action and a state
TITLES = {"table": "the table", "so101": "the table of the SO-101", "metaworld": "Meta-World"}


@dataclass
class Running:
    """The policy, and what is written."""

    checkpoint: str = setting(
        "checkpoints_policy/best.pt", "checkpoint of train_policy.py", metavar="FILE"
    )
    bundle: str | None = setting(
        None, "a policy's bundle, of export_onnx.py, in place of a checkpoint", metavar="FOLDER"
    )
    json: str | None = setting(None, "write the figures here", metavar="FILE")
    html: str | None = setting(None, "write a page with clips here", metavar="FILE")
    clips: int = setting(12, "episodes of each split on the page", at_least=1)
    device: str = setting("cpu", "auto, cpu, cuda, mps")
    threads: int = setting(1, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Running)
    parser.add_settings(Trial)
    parser.add_settings(DriveConfig)
    parser.add_settings(ChunkConfig)
    parser.add_settings(Calling)
    return parser.parse_args(argv)


def open_maker(own: Running, arguments, trial: Trial) -> tuple[Maker, dict]:
    """What makes the chunks, and its settings. Raises UserError for what it cannot do."""
    calling = flags.resolve(Calling, arguments)
    if calling.server is not None:
        return open_server(calling, arguments, trial)
    if own.bundle is not None:
        return open_bundle(own.bundle, own.threads, arguments, trial)
    making = flags.resolve(ChunkConfig, arguments)
    opened = policies.open_policy(own.checkpoint, choose_device(own.device))
    if trial.say and opened.saved.get("world", "table") != "metaworld":
        opened.sayings()  # a policy that says nothing is refused before the first episode
    return TorchMaker(opened, making), flags.to_dict(making)


def open_bundle(folder: str, threads: int, arguments, trial: Trial) -> tuple[BundleMaker, dict]:
    """A policy's bundle, and its settings."""
    making = flags.resolve(ChunkConfig, arguments)
    for name, wrong in (
        ("checkpoint", arguments.checkpoint is not None),
        ("draw", making.draw),
        ("say", trial.say),
    ):
        if wrong:
            raise UserError(f"--{name} with --bundle", "one of the two", f"leave out --{name}")
    given = flags.given(ChunkConfig, arguments)
    calls, order = given.get("calls"), given.get("order")
    maker = BundleMaker(folder, threads=threads, calls=calls, order=order)
    making = dataclasses.replace(making, calls=maker.calls, order=maker.order)
    return maker, flags.to_dict(making)


def open_server(calling: Calling, arguments, trial: Trial) -> tuple[RemoteMaker, dict]:
    """A maker behind a server, and its settings."""
    here = ("checkpoint", "bundle", *CHUNKS)
    elsewhere = [name for name in here if getattr(arguments, name) is not None]
    if trial.say:
        elsewhere.append("say")
    if elsewhere:
        raise UserError(
            f"--{elsewhere[0]} with --server",
            "one of the two: the server has its own policy",
            f"give --{elsewhere[0]} to serve_policy.py, or leave it out",
        )
    maker = RemoteMaker(calling, plain_facts(calling, "table", WIDTHS["table"], "front"))
    return maker, dict.fromkeys(CHUNKS, "the server's") | flags.to_dict(calling)


def check_robot(maker: Maker) -> str:
    """The simulator of a policy. Raises UserError for a policy of another robot."""
    world = maker.about["world"]
    if world not in WIDTHS:
        raise UserError(
            f"a policy of the robot {str(world)[:40]!r}",
            "one of " + ", ".join(WIDTHS),
            "name a policy that was trained in a simulator",
        )
    maker.scaling.check(*WIDTHS[world])
    return world


def facts_of(about: dict, settings: dict) -> dict:
    """What the page says about the policy and how it was run."""
    names = ("calls", "order", "execute", "delay", "control", "seed")
    own = {name: about[name] for name in ("head", "sees")}
    return own | {name: settings[name] for name in names}


def note_unknown(episodes: list[scores.Episode]) -> None:
    """Name the words that were said and that training never said."""
    unknown = sorted({word for episode in episodes for word in episode.unknown})
    if unknown:
        print(f"words that the policy does not know: {', '.join(unknown)}", file=sys.stderr)


def main(argv=None):
    arguments = parse_args(argv)
    own, trial = flags.resolve(Running, arguments), flags.resolve(Trial, arguments)
    drive = flags.resolve(DriveConfig, arguments)
    if own.threads:
        torch.set_num_threads(own.threads)
    maker, how = open_maker(own, arguments, trial)
    about, world = maker.about, check_robot(maker)
    film = Film() if own.html else None
    settings = {}
    for each in (own, trial, drive):
        settings |= flags.to_dict(each)
    settings |= how

    def make_driver(number: int) -> Driver:
        return Driver(maker, drive, seed=number)

    side = about["image_side"] if about["cameras"] else None
    if world == "metaworld":
        clips = own.clips if own.html else 0
        episodes = metaworld_scores.run(make_driver, trial, about["tasks"], side, clips)
    else:
        names = ",".join(name.split(".")[-1] for name in about["cameras"]) or "front"
        env = SO101Env(side, names) if world == "so101" else TableEnv(side, names)
        episodes = scores.run(env, make_driver, trial, film, own.clips)
        env.close()
    note_unknown(episodes)
    table = scores.summary(episodes)
    print(metrics.markdown(scores.rows(table)))
    for line in scores.sayings_lines(table):
        print(line)
    if world == "metaworld":
        mean = metaworld_scores.mean_of_groups(table)
        print(f"mean of the groups: {100 * mean:.1f}%")
    if film is not None:
        film.close()
        # The page shows whole splits. The terminal has a row for each kind of task.
        header, *rows = scores.rows(table)
        overview = [header, *(row for row in rows if row[1] == "all")]
        title = f"A policy at {TITLES[world]}"
        rollouts.write(own.html, episodes, facts_of(about, settings), overview, title)
    if own.json:
        kept = scores.records(episodes)
        files.write_json(own.json, {"settings": settings, "splits": table, "episodes": kept})
        print(f"figures in {own.json}")


if __name__ == "__main__":
    files.run(main)
