"""Train the independent reader: a network that sees a picture of shapes and names its objects.

Reads   --data_dir, drawn pictures, which are drawn first if they are not there
Writes  runs/picture_reader/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt, and
        reader.safetensors

On a laptop, to see it work:
    python -m tools.train_picture_reader --data_dir data_few --pictures 400 --held_back 40
        --max_steps 30 --out runs/few_reader
For real:
    python -m tools.train_picture_reader --threads 1

The reader learns from true pictures alone, of all combinations, those that are held out from models
too. It judges pictures that models paint, and how well tokens keep what was to be seen.
"""

import dataclasses
import sys
from dataclasses import dataclass

import torch

from base import files, flags
from base.config import TrainConfig
from base.flags import setting
from image import drawn, scores, tokenisers
from image.drawn import Drawing, Pictures
from image.tokenisers import to_pixels
from image.training import PictureBatches, operations, refuse_other_sizes
from loop import checkpoint, distributed, fit, recipe
from net import picture_reader
from net.picture_reader import PictureReader, ReaderConfig, reading_loss, targets

KIND = "picture_reader"
FILE = "reader.safetensors"
EVAL_BATCH = 50  # pictures scored at one time
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)  # that are tried on val


@dataclass
class ReaderRun:
    """The loss."""

    place_weight: float = setting(1.0, "weight of the loss on offset and radius", at_least=0)

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="runs/picture_reader")
    parser.add_settings(ReaderRun)
    parser.add_settings(Drawing)
    parser.add_settings(ReaderConfig)
    parser.add_settings(
        TrainConfig,
        max_steps=2000,
        batch_size=32,
        optimizer="adamw",
        learning_rate=2e-3,
        warmup_steps=100,
        final_learning_rate=0.02,
        weight_decay=0.02,
        ema=0.99,
        eval_every=250,
        save_every=100,
    )
    return parser.parse_args(argv)


def make_loss(place_weight: float):
    """loss_fn for `fit`: the sum of the reader's losses."""

    def loss_fn(model, batch, rng):
        wanted = on(targets(batch["scenes"], model.config.grid), model.device)
        losses = reading_loss(model(batch["pixels"].to(model.device)), wanted)
        total = sum(losses.values()) + (place_weight - 1) * losses["place"]
        return total, {name: value.item() for name, value in losses.items()}

    return loss_fn


def on(wanted: picture_reader.Targets, device: torch.device) -> picture_reader.Targets:
    """Targets on a device."""
    return picture_reader.Targets(
        wanted.heat.to(device),
        tuple(index.to(device) for index in wanted.where),
        {name: numbers.to(device) for name, numbers in wanted.classes.items()},
        wanted.place.to(device),
    )


def read_all(model: PictureReader, held_out: Pictures) -> list:
    """The scene that the reader sees in each picture."""
    seen = []
    for first in range(0, len(held_out), EVAL_BATCH):
        pixels = held_out.pixels[first : first + EVAL_BATCH]
        seen += model.read(to_pixels(pixels, model.device))
    return seen


def make_eval(held_out: Pictures):
    """eval_fn for `fit`: `wrong`, the share of wrong attributes, chooses best.pt."""

    def eval_fn(model):
        figures = scores.seen_figures(read_all(model, held_out), held_out.scenes)
        names = (*scores.OF_OBJECTS, *scores.OF_PICTURES)
        shares = {name: figures[name] for name in names}
        return {"wrong": 1 - figures["attributes"], **shares}

    return eval_fn


def choose_threshold(model: PictureReader, held_out: Pictures) -> float:
    """The threshold at which most pictures of val are read without a mistake.

    Of equal thresholds the middle: it is farthest from both kinds of mistakes.
    """
    right = []
    for threshold in THRESHOLDS:
        model.config = dataclasses.replace(model.config, threshold=threshold)
        figures = scores.seen_figures(read_all(model, held_out), held_out.scenes)
        right.append(figures["all_exact"])
    best = [value for value, share in zip(THRESHOLDS, right, strict=True) if share == max(right)]
    return best[len(best) // 2]


def finish(setup: recipe.Setup, size: ReaderConfig, held_out: Pictures, words) -> None:
    """Write the reader of best.pt with its threshold, and print its figures."""
    model = PictureReader(size)
    model.load_state_dict(checkpoint.load(setup.out / "best.pt", kinds=(KIND,))["averaged"])
    model = tokenisers.quick(model).eval()
    threshold = choose_threshold(model, held_out)
    model.config = dataclasses.replace(size, threshold=threshold)
    path = setup.out / FILE
    command = files.python("-m", "tools.train_picture_reader", *words)
    tokenisers.save_reader(path, model, command)
    # What is measured is the file, whose weights are rounded to float16.
    seen = read_all(tokenisers.open_reader(path), held_out)
    figures = scores.seen_figures(seen, held_out.scenes)
    print(f"done: {path}; fingerprint {tokenisers.fingerprint(path)}; threshold {threshold}")
    for name in ("attributes", *scores.OF_OBJECTS, *scores.OF_PICTURES):
        low, high = figures[f"{name}_ci95"]
        print(f"{name} {100 * figures[name]:.1f}% ({100 * low:.1f} to {100 * high:.1f})")
    print("next: " + files.python("-m", "tools.train_picture_codes", "--reader", path))


def main(argv=None):
    args = parse_args(argv)
    setup = recipe.read_run(args, kinds=(KIND,))
    own, drawing, cfg = setup.own(ReaderRun), setup.own(Drawing), setup.train_config()
    kept = setup.resume["model"] if setup.resume else {}
    size = flags.resolve(ReaderConfig, args, setup.file, kept)
    if setup.resume:
        refuse_other_sizes(setup.resume, size)
    meta = drawn.make(drawing, size.side)
    train, held_out, judge = (
        Pictures(drawing.data_dir, split, meta) for split in ("train", "val", "judge")
    )
    if setup.resume:
        before = [setup.resume["data"]["fingerprint"]]
        recipe.refuse_other_data(drawing.data_dir, "pictures", [meta["fingerprint"]], before)
    device = recipe.begin(setup, cfg, own, drawing, size, cfg)
    model = tokenisers.quick(PictureReader(size).to(device))
    about = {
        "kind": KIND,
        "objective": "reading",
        "model": flags.to_dict(size),
        "statistics": {},
        "data": {"fingerprint": meta["fingerprint"]},
        "flags": flags.to_dict(own) | flags.to_dict(drawing),
    }
    batches = PictureBatches([train, judge], cfg.batch_size, cfg.accumulate, cfg.seed)
    loss_fn = make_loss(own.place_weight)
    distributed.say(f"{operations(model, loss_fn, batches) / 1e9:.1f} GFLOP per step")
    fit.fit(
        model,
        *(loss_fn, batches, cfg, setup.out),
        about=about,
        eval_fn=make_eval(held_out),
        resume=setup.resume,
    )
    if distributed.leads():
        finish(setup, size, held_out, sys.argv[1:] if argv is None else argv)
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
