"""The stages of the demo of all models of scenes: each is one of the scripts, as a user would run
it.

The picture codes and the reader are not trained here: their files are in assets/. Scenes are drawn
first, then two queues of trainings run side by side, then one page shows all models.

    painter    words to pictures, and changes of pictures
    others     captions of scenes, captions of clips, dialogues, one after another
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from base.errors import UserError
from loop import commands
from loop.commands import ROOT, Command, words

CODES = ROOT / "assets" / "picture_codes.safetensors"
READER = ROOT / "assets" / "picture_reader.safetensors"
SECTIONS = ("captions", "drawings", "edits", "clips", "dialogues")
# Shares of the time of the second queue. The first has a single training.
OTHERS = {"captions": 0.35, "clips": 0.3, "dialogues": 0.35}
MINUTES = 10.0  # of the whole demo
# Share of the whole time for starts, evaluations and the page. A guess: measure it.
RESERVED = 0.2


@dataclass(frozen=True)
class World:
    """out: the folder of everything. quick: a few steps, to see that it runs. threads: of each of
    the two trainings that run side by side.
    """

    out: Path
    codes: Path = CODES
    reader: Path = READER
    seed: int = 0
    quick: bool = False
    threads: int = 1

    def best(self, run: str) -> Path:
        """The checkpoint of a run, which is there when its training is over."""
        return self.out / run / "best.pt"

    def few(self, count: int) -> int:
        """A number of scenes or pictures; in a quick run a few."""
        return min(count, 20) if self.quick else count


def drawings(world: World) -> list[Command]:
    """Draw scenes: with captions, as picture tokens, as clips, with dialogues.

    One object per scene for captions and pictures: more objects need more training. The features
    of images take most of the time, so there are not more images than ten minutes can read twice.
    Looks and notes need more training, too: without them, a dialogue is questions and answers.
    """
    out, seed, few = world.out, world.seed, world.few
    return [
        words(
            "prep_caption_synthetic.py",
            out=out / "data_captions",
            num_train=few(1500),
            num_val=few(60),
            levels="1",
            seed=seed,
        ),
        words(
            "prep_image_tokens.py",
            out=out / "data_pictures",
            codes=world.codes,
            num_train=few(4000),
            num_val=few(60),
            levels="1",
            noise=0,
            tidy=True,
            seed=seed,
        ),
        words(
            "prep_caption_video.py",
            out=out / "data_clips",
            num_train=few(300),
            num_val=few(40),
            keep=0,
            seed=seed,
        ),
        words(
            "prep_dialogue.py",
            out=out / "data_dialogues",
            num_train=few(600),
            num_val=few(40),
            looks=0,
            seed=seed,
            **{"no-notes": True},
        ),
    ]


def trainings(world: World, minutes: float) -> dict[str, list[Command]]:
    """{queue: its trainings}. minutes: of each queue."""
    return {"painter": [train_painter(world, minutes)], "others": train_others(world, minutes)}


def pace(world: World, minutes: float) -> dict[str, object]:
    """How long a training is, how often it saves, and its part of the machine."""
    length = {"max_steps": 4} if world.quick else {"minutes": f"{minutes:.2f}"}
    return {
        **length,
        # A stopped demo continues at the last save.
        "eval_every": 100,
        "save_every": 50,
        "warmup_steps": 2 if world.quick else 30,
        "threads": world.threads,
        "seed": world.seed,
    }


def train_painter(world: World, minutes: float) -> Command:
    """The network of words and pictures."""
    return words(
        "train_image.py",
        data_dir=world.out / "data_pictures",
        out=world.out / "painter",
        d_model=192,
        layers=4,
        batch_size=32,
        eval_images=40,
        **pace(world, minutes),
    )


def train_others(world: World, minutes: float) -> list[Command]:
    """The captioner of scenes, the captioner of clips, the model of dialogues."""
    captioner = {
        "model_config": "tiny",
        "d_model": 160,
        "batch_size": 64,
        "accumulate": 2,
        "learning_rate": "4e-3",
        "eval_images": 40,
        "length_hidden": 0,
    }
    return [
        words(
            "train_captioning.py",
            data_dir=world.out / "data_captions",
            out=world.out / "captioner",
            **captioner,
            **pace(world, OTHERS["captions"] * minutes),
        ),
        words(
            "train_captioning.py",
            data_dir=world.out / "data_clips",
            out=world.out / "clips",
            patch_layers=0,  # in so few steps they gain little (docs/log/pictures.md)
            **captioner,
            **pace(world, OTHERS["clips"] * minutes),
        ),
        words(
            "train_dialogue.py",
            data_dir=world.out / "data_dialogues",
            out=world.out / "dialogue",
            model_config="tiny",
            d_model=160,
            batch_size=32,
            learning_rate="4e-3",
            eval_dialogues=20,
            **pace(world, OTHERS["dialogues"] * minutes),
        ),
    ]


def page(world: World) -> Command:
    """The page of all models that are there."""
    return words(
        "tools.world_page",
        captioner=world.best("captioner"),
        captions_data=world.out / "data_captions",
        painter=world.best("painter"),
        pictures_data=world.out / "data_pictures",
        reader=world.reader,
        clip_captioner=world.best("clips"),
        clips_data=world.out / "data_clips",
        dialogue=world.best("dialogue"),
        dialogues_data=world.out / "data_dialogues",
        scored=world.few(40),
        shown=4 if world.quick else 8,
        seed=world.seed,
        out=world.out / "index.html",
    )


def minutes_left(minutes: float, drawing: float) -> float:
    """Minutes for the trainings of a demo of `minutes`, of which drawing took `drawing`.

    Raises UserError if no time is left.
    """
    left = minutes * (1 - RESERVED) - drawing
    if left <= 0:
        raise UserError(
            f"--minutes {minutes:g}, of which drawing took {drawing:.1f}",
            "some time that is left for training",
            "run again: what was drawn is there. Or raise --minutes",
        )
    return left


def make(out: Path, codes, reader, *, minutes: float, seed: int, quick: bool) -> None:
    """Draw, train, write the page; a demo that was stopped continues where it was.

    Raises UserError for codes or a reader that cannot be opened, before anything is drawn.
    SystemExit has the status of a stage that failed.
    """
    # Not above: the other demos need no torch before their first stage.
    from image import tokenisers

    tokenisers.open_codes(codes)
    tokenisers.open_reader(reader)
    clock = time.perf_counter()
    threads = max(1, (os.cpu_count() or 1) // 2)
    world = World(out, commands.placed(codes), commands.placed(reader), seed, quick, threads)
    for command in drawings(world):
        commands.run(command)
    left = minutes_left(minutes, (time.perf_counter() - clock) / 60)
    commands.run_side_by_side(trainings(world, left), out / "logs")
    commands.run(page(world))
    print(f"{(time.perf_counter() - clock) / 60:.1f} minutes in all")


# ---- what a full training is


def full(section: str) -> list[Command]:
    """The commands of a training for real of a section of the page: data first, then training."""
    paint = [
        words(
            "prep_image_tokens.py",
            num_train=30000,
            num_val=500,
            levels="1,2",
            noise=0,
            inside=0,
            tidy=True,
            plans=True,
            codes=shown(CODES),
        ),
        words("train_image.py", objective="ar", minutes=60, out="checkpoints_image_ar"),
        words(
            "train_image.py",
            init_from="checkpoints_image_ar/best.pt",
            logit_shift=True,
            block_sizes="1,12",
            minutes=120,
        ),
    ]
    return {
        "captions": [
            words("prep_caption_synthetic.py", num_train=48000, num_val=500),
            words("train_captioning.py", max_steps=5000, batch_size=64),
        ],
        "drawings": paint,
        "edits": paint,
        "clips": [
            words("prep_caption_video.py", num_train=10000, num_val=500),
            words(
                "train_captioning.py",
                data_dir="data_captions_video",
                out="checkpoints_video",
                max_steps=5000,
                batch_size=64,
            ),
        ],
        "dialogues": [
            words("prep_dialogue.py", num_train=5000, num_val=200),
            words("train_dialogue.py", max_steps=1000, batch_size=32),
        ],
    }[section]


def shown(path: Path) -> str:
    """A path of the project as a user of its folder would type it."""
    return path.relative_to(ROOT).as_posix()
