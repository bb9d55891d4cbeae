"""Serve a policy to a robot on another machine, by openpi's protocol.

Reads   checkpoints_policy/best.pt (--checkpoint): a checkpoint of train_policy.py; or its bundle
Writes  nothing

On the machine that computes, until Ctrl-C:
    python serve_policy.py
On the robot's machine, here the simulated table on the same machine:
    python run_policy.py --server ws://127.0.0.1:8000 --episodes 20 --splits val
A bundle, without torch:
    python serve_policy.py --bundle bundle_policy
To other machines, with a key that both have in a file:
    python serve_policy.py --host 0.0.0.0 --key_file policy.key
A robot that has names of its own for what it sees:
    python serve_policy.py --names "cam/high=image,qpos=state"

openpi's own client drives it too: docs/robot.md shows how. It needs
`pip install -r requirements-server.txt`. Nothing is encrypted: between machines, use a tunnel.
"""

import asyncio
from dataclasses import dataclass

from base import facts, files, flags
from base.errors import UserError
from base.flags import setting
from base.serving import Service, Serving, load_server


@dataclass
class Served:
    """The policy, and how its chunks are made."""

    checkpoint: str = setting(
        "checkpoints_policy/best.pt", "checkpoint of train_policy.py", metavar="FILE"
    )
    bundle: str | None = setting(
        None, "a policy's bundle, of export_onnx.py, in place of a checkpoint", metavar="FOLDER"
    )
    calls: int | None = setting(
        None, "calls of the head per chunk; none: a single call, or the bundle's own", at_least=1
    )
    order: str | None = setting(
        None, "which tokens a call reveals first: time, confidence, random", metavar="ORDER"
    )
    draw: bool = setting(False, "draw the actions; else take the median of each number")
    device: str = setting("cpu", "auto, cpu, cuda, mps")
    threads: int = setting(1, "CPU threads; 0 means the runtime's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Served)
    parser.add_settings(Serving)
    return parser.parse_args(argv)


def open_checkpoint(own: Served):
    """A maker of a checkpoint, and the attributes of its things."""
    import torch

    from loop.hardware import choose_device
    from net.chunks import ChunkConfig
    from robot import policies
    from robot.writer import TorchMaker

    if own.threads:
        torch.set_num_threads(own.threads)
    given = {"calls": own.calls, "order": own.order, "draw": own.draw}
    making = ChunkConfig(**{name: value for name, value in given.items() if value is not None})
    opened = policies.open_policy(own.checkpoint, choose_device(own.device))
    return TorchMaker(opened, making), opened.policy.grounder.config.kinds


def open_bundle(own: Served):
    """A maker of a bundle, and the attributes of its things. No torch."""
    from base.policy_runner import BundleMaker

    if own.draw:
        raise UserError("--draw with --bundle", "one of the two", "leave out --draw")
    maker = BundleMaker(own.bundle, threads=own.threads, calls=own.calls, order=own.order)
    return maker, int(maker.facts["model"]["grounder"]["kinds"])


def main(argv=None):
    arguments = parse_args(argv)
    own, serving = flags.resolve(Served, arguments), flags.resolve(Serving, arguments)
    load_server()  # a missing module is named before the policy is read
    if own.bundle is not None and arguments.checkpoint is not None:
        raise UserError("--checkpoint with --bundle", "one of the two", "leave one out")
    maker, kinds = open_checkpoint(own) if own.bundle is None else open_bundle(own)
    about = facts.of_maker(maker, kinds)
    print(
        f"a policy of {about.length} actions per chunk that sees {about.sees}; "
        f"it reads {', '.join(about.reads())}"
    )
    asyncio.run(Service(maker, about, serving).run())


if __name__ == "__main__":
    files.run(main)
