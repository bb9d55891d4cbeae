"""A clip of a simulated arm that follows orders; under a delay, with and without the prefix.

Reads   a policy: --checkpoint
Writes  arm.gif (--out): an animated picture, GIF or WebP by its name

Two episodes of the split `val`:
    python -m tools.arm_clip --checkpoint checkpoints_policy/best.pt --episodes 2
An order of your own:
    python -m tools.arm_clip --instruction "put the red star behind the blue cross"
Chunks that come 200 ms late: on the left they begin with the actions that the arm does meanwhile,
on the right they do not. Half a minute on a busy thread:
    python -m tools.arm_clip --latency 200 --episodes 4 --out delay.gif

The loop, the guard and the plan are those of drive_robot.py, on its virtual clock. The episodes are
those of the split from --first on, with their outcome in the terminal.
"""

from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw

from base import files, flags, limits
from base.control import ControlConfig
from base.errors import UserError
from base.faults import Rehearsal, Troubled, Troubles
from base.flags import setting
from base.runs import Runner
from base.status import Journal
from base.virtual import VirtualClock
from net.chunks import ChunkConfig
from robot import film, policies
from robot.stills import kinds_of
from robot.writer import TorchMaker
from worlds import live
from worlds.camera import Cameras

STRIP = 32  # pixels below the images, for the order and the time
GAP = 4  # pixels between two arms
LAST = 8  # images for which the end of an episode stands still
SUFFIXES = (".gif", ".webp")


@dataclass
class Clip:
    """What is shown."""

    checkpoint: str = setting(
        "checkpoints_policy/best.pt", "checkpoint of train_policy.py", metavar="FILE"
    )
    out: str = setting("arm.gif", "the picture to write, .gif or .webp", metavar="FILE")
    split: str = setting("val", "which tables and orders (docs/robot.md)")
    instruction: str | None = setting(None, "your own order; none: those of the split")
    first: int = setting(0, "number of the first episode", at_least=0)
    episodes: int = setting(1, "episodes, one after the other", at_least=1, at_most=20)
    seed: int = setting(0, "decides the tables and the orders")
    latency: float = setting(0.0, "ms that every chunk comes later", at_least=0, at_most=5000)
    side: int = setting(224, "pixels of an image's side", at_least=64, at_most=512)
    seconds: float = setting(8.0, "seconds of an episode at most", above=0, at_most=60)

    def __post_init__(self):
        flags.check(self)
        if not self.out.lower().endswith(SUFFIXES):
            raise UserError(f"--out {self.out}", "a .gif or a .webp", "choose another name")

    def arms(self) -> list[bool]:
        """Whether an arm keeps the prefix: one arm, or two under a delay."""
        return [True, False] if self.latency else [True]


class Filmed(Runner):
    """A runner that keeps what the front camera sees after each control step."""

    def watch(self, cameras: Cameras) -> None:
        self.cameras, self.images = cameras, []

    def each(self, now: float) -> None:
        super().each(now)
        env = self.robot.env
        self.images.append(self.cameras.picture(env.model, env.data, film.CAMERA))


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Clip)
    return parser.parse_args(argv)


def play(clip: Clip, maker: TorchMaker, cameras: Cameras, number: int, prefix: bool) -> dict:
    """An episode on a virtual clock: its order, its images, and whether the order is done."""
    bounds, clock = limits.read(maker.about["world"]), VirtualClock()
    side = maker.about["image_side"] if maker.about["sees"] == "pixels" else None
    names = ",".join(name.split(".")[-1] for name in maker.about["cameras"]) or "front"
    robot = live.open_table(bounds, clock, live.Camera(side, names), 1.0, kinds_of)
    config = ControlConfig(prefix=prefix, seconds=clip.seconds)
    late = Troubled(maker, Troubles(latency=clip.latency), clock)
    runner = Filmed(robot, late, bounds, config, clock, Journal(None))
    runner.watch(cameras)
    text = robot.begin(clip.split, clip.seed, number, clip.instruction)
    trial = Rehearsal(virtual=True, split=clip.split, seed=clip.seed)
    kept = runner.episode(text, clip.seed + number, trial)
    robot.close()
    return {"text": text, "images": runner.images, "done": kept["done"], "rate": robot.rate}


def page(arms: list[dict], names: list[str], step: int) -> Image.Image:
    """One image of the clip: the arms side by side, and a strip of text below."""
    side = len(arms[0]["images"][0])
    whole = Image.new("RGB", ((side + GAP) * len(arms) - GAP, side + STRIP), "white")
    draw = ImageDraw.Draw(whole)
    for place, (arm, name) in enumerate(zip(arms, names, strict=True)):
        left, last = place * (side + GAP), len(arm["images"]) - 1
        whole.paste(Image.fromarray(arm["images"][min(step, last)]), (left, 0))
        draw.text((left + 4, side + 17), name, fill="black")
        if step >= last:
            end, colour = ("done", "green") if arm["done"] else ("not done", "red")
            draw.text((left + side - 52, side + 17), end, fill=colour)
    draw.text((4, side + 3), f"{arms[0]['text']}   {step / arms[0]['rate']:.1f} s", fill="black")
    return whole


def pages(arms: list[dict], names: list[str]) -> list[Image.Image]:
    """All images of an episode. An arm that is ready waits for the other."""
    length = max(len(arm["images"]) for arm in arms) + LAST
    return [page(arms, names, step) for step in range(length)]


def main(argv=None):
    clip = flags.resolve(Clip, parse_args(argv))
    film.require()
    torch.set_num_threads(1)
    maker = TorchMaker(policies.open_policy(clip.checkpoint, torch.device("cpu")), ChunkConfig())
    if maker.about["world"] not in ("table", "so101"):
        raise UserError(
            f"a policy of the world {maker.about['world']!r}", "table or so101", "name another"
        )
    cameras = Cameras(clip.side)
    late = f"{clip.latency:g} ms late"
    names = [f"{late}, with prefix", f"{late}, without"] if clip.latency else [""]
    images: list[Image.Image] = []
    for number in range(clip.first, clip.first + clip.episodes):
        arms = [play(clip, maker, cameras, number, prefix) for prefix in clip.arms()]
        images += pages(arms, names)
        ends = ", ".join("done" if arm["done"] else "not done" for arm in arms)
        print(f"{number}: {arms[0]['text']}: {ends}")
    cameras.close()
    images = [image.quantize(64) for image in images] if clip.out.endswith(".gif") else images
    with files.replacing(clip.out) as file:
        images[0].save(
            file,
            format=clip.out.rsplit(".", 1)[1].upper(),
            save_all=True,
            append_images=images[1:],
            duration=round(1000 / arms[0]["rate"]),
            loop=0,
        )
    print(f"{clip.out}: {len(images)} images")


if __name__ == "__main__":
    files.run(main)
