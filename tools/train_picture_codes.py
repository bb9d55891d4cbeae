"""Train picture codes: a small autoencoder that turns drawn scenes into a grid of tokens and back.

Reads   --data_dir, drawn pictures, which are drawn first if they are not there; --reader, a file of
        tools.train_picture_reader, for the gate
Writes  runs/picture_codes/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt, and
        picture_codes.safetensors; --picture, originals above their reconstructions

On a laptop, to see it work:
    python -m tools.train_picture_codes --data_dir data_few --pictures 400 --held_back 40
        --max_steps 30 --out runs/few_codes
For real, in a single training (docs/pictures.md has the three trainings of the shipped codes):
    python -m tools.train_picture_codes --threads 1 --reader runs/picture_reader/reader.safetensors
        --picture picture_codes.png
The gate of a finished run, once a reader is there:
    python -m tools.train_picture_codes --resume --reader runs/picture_reader/reader.safetensors

The gate: the reader's right answers on reconstructions, divided by those on the originals. Tokens
that lose what a reader could see are too coarse to paint with.
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from base import files, flags, metrics
from base.config import TrainConfig
from base.errors import UserError
from base.flags import setting
from image import drawn, scores, tokenisers
from image.drawn import Drawing, Pictures
from image.tokenisers import to_images, to_pixels
from image.training import PictureBatches, operations, refuse_other_sizes
from loop import checkpoint, distributed, fit, recipe
from net.picture_codes import (
    STRIDE,
    PictureCodes,
    PictureCodesConfig,
    pixel_weights,
    reconstruction_loss,
    usage,
)
from net.picture_features import FeatureDistance

KIND = "picture_codes"
FILE = "picture_codes.safetensors"
EVAL_BATCH = 50  # pictures scored at one time
SHOWN = 12  # pictures of --picture


@dataclass
class CodesRun:
    """The loss, and the gate at the end."""

    crop: int = setting(
        48, "train on windows of this side, each around an object; 0: whole pictures", at_least=0
    )
    square_weight: float = setting(5.0, "weight of the squared error; L1 has 1", at_least=0)
    feature_weight: float = setting(
        0.2, "weight of the distance for the encoder in assets/", at_least=0
    )
    init_from: str | None = setting(
        None,
        "start from these codes of equal sizes; they may have more encoder blocks",
        metavar="FILE",
    )
    reader: str | None = setting(None, "the reader of the gate; none: no gate", metavar="FILE")
    picture: str | None = setting(
        None, "write originals above reconstructions into this PNG", metavar="FILE"
    )

    def __post_init__(self):
        flags.check(self)

    def check_crop(self, side: int) -> None:
        """Raise UserError unless a window fits into a picture, and into the grid."""
        if self.crop > side or self.crop % STRIDE:
            found = f"--crop {self.crop} of pictures of side {side}"
            expected = f"a multiple of {STRIDE}, at most the side"
            raise UserError(found, expected, "choose another --crop; 0: whole pictures")


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="runs/picture_codes")
    parser.add_settings(CodesRun)
    parser.add_settings(Drawing)
    parser.add_settings(PictureCodesConfig)
    parser.add_settings(
        TrainConfig,
        max_steps=1500,
        batch_size=64,
        optimizer="muon",
        learning_rate=2e-3,
        warmup_steps=100,
        final_learning_rate=0.02,
        weight_decay=0.01,
        ema=0.99,
        eval_every=250,
        save_every=100,
    )
    return parser.parse_args(argv)


def cut(maps: torch.Tensor, corners: torch.Tensor, side: int) -> torch.Tensor:
    """The windows of maps (B, C, S, S) at corners (B, 2): (B, C, side, side)."""
    windows = []
    for row, (top, left) in zip(maps, corners.tolist(), strict=True):
        windows.append(row[:, top : top + side, left : left + side])
    return torch.stack(windows)


def make_loss(own: CodesRun, distance: FeatureDistance | None):
    """loss_fn for `fit`: the weighted L1 of pixels, their squared error, and features' distance."""

    def loss_fn(model, batch, rng):
        pixels = batch["pixels"].to(model.device)
        found, _ = model(pixels)
        weights = pixel_weights(batch["places"].to(model.device), model.config.side)
        if len(batch["corners"]):
            weights = cut(weights, batch["corners"], pixels.shape[-1])
        losses = reconstruction_loss(found, pixels, weights)
        total = losses["pixels"] + own.square_weight * losses["squares"]
        if distance is not None:
            losses["features"] = distance(found, pixels)
            total = total + own.feature_weight * losses["features"]
        return total, {name: value.item() for name, value in losses.items()}

    return loss_fn


def open_start(path: str | None, size: PictureCodesConfig) -> PictureCodes | None:
    """The codes of --init_from, without the encoder blocks that the new codes do not have.

    Raises UserError if other sizes differ.
    """
    if path is None:
        return None
    start = tokenisers.open_codes(path)
    if start.config.encoder_blocks > size.encoder_blocks:
        start.drop_encoder_blocks(size.encoder_blocks)
    if start.config != size:
        found = f"--init_from {path}, codes of {flags.to_dict(start.config)}"
        raise UserError(found, f"codes of {flags.to_dict(size)}", "choose the sizes of the file")
    return start


def make_eval(held_out: Pictures, square_weight: float):
    """eval_fn for `fit`: the loss on val, which chooses best.pt, and the use of the codes."""

    @torch.no_grad()
    def eval_fn(model):
        sums = {"loss": 0.0, "pixels": 0.0, "squares": 0.0}
        tokens = []
        for first in range(0, len(held_out), EVAL_BATCH):
            pixels = to_pixels(held_out.pixels[first : first + EVAL_BATCH], model.device)
            places = torch.from_numpy(held_out.places[first : first + EVAL_BATCH]).to(model.device)
            found, codes = model(pixels)
            losses = reconstruction_loss(found, pixels, pixel_weights(places, pixels.shape[-1]))
            losses["loss"] = losses["pixels"] + square_weight * losses["squares"]
            for name, value in losses.items():
                sums[name] += value.item() * len(pixels) / len(held_out)
            tokens.append(codes.cpu())
        return {**sums, **usage(torch.cat(tokens), model.config.codes)}

    return eval_fn


def both_sides(model: PictureCodes, images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, S, S, 3) uint8 as pixels, and their reconstructions as a viewer gets them."""
    pixels = to_pixels(images, model.device)
    remade = model.decode(model.encode(pixels))
    # Rounded to whole colours: the painted pictures that a reader will judge are files too.
    return pixels, to_pixels(to_images(remade), model.device)


def gate(model: PictureCodes, reader, held_out: Pictures) -> str:
    """What the reader sees in originals and in reconstructions: a table."""
    originals, remade = [], []
    for first in range(0, len(held_out), EVAL_BATCH):
        sides = both_sides(model, held_out.pixels[first : first + EVAL_BATCH])
        originals += reader.read(sides[0])
        remade += reader.read(sides[1])
    before = scores.seen_figures(originals, held_out.scenes)
    after = scores.seen_figures(remade, held_out.scenes)
    ratios = scores.ratios(remade, originals, held_out.scenes)
    rows = [["reader", "originals", "reconstructions", "ratio (95% interval)"]]
    for name in ("attributes", *scores.OF_OBJECTS, *scores.OF_PICTURES):
        ratio = "none"
        if name in ratios:
            value, low, high = ratios[name]
            ratio = f"{100 * value:.1f}% ({100 * low:.1f} to {100 * high:.1f})"
        rows.append([name, f"{100 * before[name]:.1f}%", f"{100 * after[name]:.1f}%", ratio])
    return f"gate, on {len(held_out):,} pictures:\n{metrics.markdown(rows)}"


def write_picture(path: str, model: PictureCodes, held_out: Pictures) -> None:
    """Originals in the upper row, reconstructions in the lower row."""
    pixels, remade = both_sides(model, held_out.pixels[:SHOWN])
    rows = [np.concatenate(list(to_images(side)), 1) for side in (pixels, remade)]
    with files.replacing(path) as file:
        Image.fromarray(np.concatenate(rows)).save(file, "PNG")
    print(f"written: {path}")


def finish(setup: recipe.Setup, own: CodesRun, size: PictureCodesConfig, held_out, reader, words):
    """Write the codes of best.pt, then the gate and the picture. words: the command's flags."""
    model = PictureCodes(size)
    model.load_state_dict(checkpoint.load(setup.out / "best.pt", kinds=(KIND,))["averaged"])
    path = setup.out / FILE
    command = files.python("-m", "tools.train_picture_codes", *words)
    tokenisers.save_codes(path, model, command)
    # What is measured is the file, whose weights are rounded to float16.
    model = tokenisers.open_codes(path)
    print(f"done: {path}; fingerprint {tokenisers.fingerprint(path)}")
    figures = make_eval(held_out, own.square_weight)(model)
    print("  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    if own.picture:
        write_picture(own.picture, model, held_out)
    if reader is not None:
        print(gate(model, reader, held_out))
    print("next: " + files.python("prep_image_tokens.py", "--codes", path))


def main(argv=None):
    args = parse_args(argv)
    setup = recipe.read_run(args, kinds=(KIND,))
    own, drawing, cfg = setup.own(CodesRun), setup.own(Drawing), setup.train_config()
    reader = tokenisers.open_reader(own.reader) if own.reader else None  # first: it costs no time
    kept = setup.resume["model"] if setup.resume else {}
    size = flags.resolve(PictureCodesConfig, args, setup.file, kept)
    own.check_crop(size.side)
    start = open_start(own.init_from, size)
    if setup.resume:
        refuse_other_sizes(setup.resume, size)
    meta = drawn.make(drawing, size.side)
    train, held_out = (Pictures(drawing.data_dir, split, meta) for split in ("train", "val"))
    if setup.resume:
        before = [setup.resume["data"]["fingerprint"]]
        recipe.refuse_other_data(drawing.data_dir, "pictures", [meta["fingerprint"]], before)
    device = recipe.begin(setup, cfg, own, drawing, size, cfg)
    model = tokenisers.quick(PictureCodes(size).to(device))
    if start is not None and not setup.resume:
        model.load_state_dict(start.state_dict())
    about = {
        "kind": KIND,
        "objective": "reconstruction",
        "model": flags.to_dict(size),
        "statistics": {},
        "data": {"fingerprint": meta["fingerprint"]},
        "flags": flags.to_dict(own) | flags.to_dict(drawing),
    }
    batches = PictureBatches([train], cfg.batch_size, cfg.accumulate, cfg.seed, own.crop)
    distance = FeatureDistance(size.side, device) if own.feature_weight else None
    loss_fn = make_loss(own, distance)
    distributed.say(f"{operations(model, loss_fn, batches) / 1e9:.1f} GFLOP per step")
    eval_fn = make_eval(held_out, own.square_weight)
    fit.fit(
        model,
        *(loss_fn, batches, cfg, setup.out),
        about=about,
        eval_fn=eval_fn,
        resume=setup.resume,
    )
    if distributed.leads():
        finish(setup, own, size, held_out, reader, sys.argv[1:] if argv is None else argv)
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
