"""Draw what the network is: the captioner, one block, and the diffusion process, from the modules.

Reads   a checkpoint of text or captions (--checkpoint), or nothing: a named size (--model_config)
Writes  docs/ (--out): architecture_captioning, architecture_block and architecture_diffusion, each
        as .png and .svg; on the screen, a table of modules and parameters

Seconds on a laptop; the default captioner has 51,917,367 parameters:
    python visualize_architecture.py
    python visualize_architecture.py --checkpoint checkpoints/best.pt --detailed --out drawn

Every shape and count is read from the modules. diffusion.py and net/samplers.py draw every mask.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import diffusion
from base import config, files, flags
from base.config import ModelConfig, SampleConfig
from base.flags import check, setting
from loop import checkpoint
from model import Denoiser
from net import anatomy, image_encoders, samplers
from show import block_diagram, diagrams
from worlds import drawing, language, scenes

# A captioner of scenes, as train_captioning.py makes it.
SCENES = {
    "vocab_size": 512,
    "output_size": 509,
    "max_length": 48,
    "length_hidden": config.LENGTH_HIDDEN,
}
RELATIONS = {"above", "over", "below", "under", "inside", "within"}
CALLS = 4  # of the sampler, in the pictures
WORDS, LETTERS = 8, 36  # of the example caption, at most: so it fits into the pictures
SMALLEST = 0.11  # radius of an object that can be seen in a picture of 108 points


@dataclass
class Diagrams:
    """What to draw."""

    checkpoint: str | None = setting(None, "draw this checkpoint's model (text or captions)")
    model_config: str = setting(
        "caption", "without a checkpoint: this size", metavar="|".join(config.NAMED_SIZES)
    )
    detailed: bool = setting(False, "show every weight, in the picture of the block and on screen")
    out: str = setting("docs", "folder to write")
    seed: int = setting(0, "decides the example and its masks", at_least=0)

    def __post_init__(self):
        check(self)


@dataclass
class ImageEncoder:
    """What is known of a captioner's image encoder. loaded: the encoder, if it is at hand."""

    name: str
    patches: int
    width: int
    loaded: image_encoders.Encoder | None


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Diagrams)
    return parser.parse_args(argv)


def open_checkpoint(path: str) -> tuple[Denoiser, ImageEncoder | None]:
    """A checkpoint's model, and its image encoder (None for text)."""
    model, _, saved = checkpoint.open_model(path)
    about = saved.get("encoder")
    if not about:
        return model, None
    loaded = None
    if about["encoder"] == image_encoders.EMBEDDED:
        loaded = image_encoders.load(image_encoders.EMBEDDED)
        if loaded.key != about["key"]:
            loaded = None  # other weights of this name: only the checkpoint's words are true
    name = Path(about["encoder"]).name
    return model, ImageEncoder(name, about["patches"], about["width"], loaded)


def named_model(size: str) -> tuple[Denoiser, ImageEncoder | None]:
    """A named size; `caption` is the captioner of scenes with the embedded encoder."""
    settings, encoder = config.named_size(size), None
    if size == "caption":
        loaded = image_encoders.load(image_encoders.EMBEDDED)
        encoder = ImageEncoder(loaded.name, loaded.patches, loaded.width, loaded)
        settings |= {**SCENES, "condition_width": loaded.width}
    with torch.device("meta"):  # shapes without memory
        return Denoiser(ModelConfig(**settings)), encoder


@functools.cache  # the search takes half a second, and every picture asks for its result
def example(seed: int) -> tuple[scenes.Scene, list[str]]:
    """A scene of two objects that are large enough, and a true caption with a relation."""
    rng = np.random.default_rng(seed)
    while True:
        scene = scenes.sample_scene(rng, 2)
        if min(item.radius for item in scene.objects) <= SMALLEST:
            continue
        for text in language.several(scene, rng):
            words = text.split()
            if len(words) == WORDS and len(text) <= LETTERS and RELATIONS & set(words):
                return scene, words


def unmasking(count: int, calls: int, seed: int, sampler: str) -> list[list[bool]]:
    """Which of `count` tokens are there at the start, and after each of a sampler's calls."""
    token, mask = 0, 1

    def denoise(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        return torch.zeros(int(select.sum()), 1)  # it knows a single token, and no order

    drawn = samplers.sample(
        denoise,
        torch.full((1, count), mask),
        SampleConfig(sampler=sampler, steps=calls),
        mask_id=mask,
        rngs=samplers.row_generators(seed, 1),
        keep_frames=True,
    )
    return [[False] * count, *((frame[0] == token).tolist() for frame in drawn.frames)]


def masking(count: int, seed: int) -> list[list[bool]]:
    """Which of `count` tokens are there at rising noise, from none masked to all."""
    rng = torch.Generator().manual_seed(seed)
    free = torch.ones(CALLS + 1, count, dtype=torch.bool)
    numbers = torch.arange(CALLS + 1) * count // CALLS
    return (~diffusion.mask_exactly(free, numbers, rng)).tolist()


def reveal(words: list[str], visible: list[bool]) -> list[str]:
    """The words, with "" where a mask is."""
    return [word if there else "" for word, there in zip(words, visible, strict=True)]


def encoder_facts(encoder: ImageEncoder, image: Image.Image) -> dict:
    """Plain values for the diagram; the features as colours, if the encoder is at hand."""
    facts = {"name": encoder.name, "patches": encoder.patches, "width": encoder.width}
    facts["image"] = np.asarray(image)
    if encoder.loaded is None:
        return facts
    features = encoder.loaded.features([image])[0]  # (P, width)
    return facts | {
        "parameters": anatomy.count(encoder.loaded.model),
        "side": encoder.loaded.preprocess.size,
        "features": anatomy.colours(features).numpy(),
    }


def draw_captioner(path: Path, model: Denoiser, facts: dict, encoder: dict | None, seed: int):
    """The whole way from an image to a caption, at two neighbouring calls of the sampler."""
    _, words = example(seed)
    frames = unmasking(WORDS, CALLS, seed, "first_hitting")[1:3]
    end = "[EOS]"
    if model.config.causal:  # it writes a token per call from the left, and its [EOS] too
        frames = unmasking(WORDS, WORDS, seed, "left_to_right")[3:5]
        end = ""
    now, then = (["[BOS]", *reveal(words, frame), end] for frame in frames)
    return diagrams.captioning(path, facts, encoder, ["[BOS]", *words, "[EOS]"], now, then)


def draw_block(path: Path, model: Denoiser, facts: dict, parts: list[dict], detailed: bool):
    """A block along its residual stream; detailed: with tables of weights and of layers."""
    tables = []
    if detailed:
        # The right edges of the columns, in points: a layer's table has a column per part.
        edges = tuple(range(120, 121 + 80 * len(parts), 80))
        tables = [
            ((262, 342, 384), anatomy.weight_table(model)),
            (edges, anatomy.layer_table(model)),
        ]
    return block_diagram.block(path, facts, parts, tables)


def draw_process(path: Path, conditioned: bool, seed: int):
    """Masking for training, next to writing."""
    _, words = example(seed)
    masked = [reveal(words, visible) for visible in masking(WORDS, seed)]
    frames = unmasking(WORDS, CALLS, seed, "first_hitting")
    written = [reveal(words, visible) for visible in frames]
    return diagrams.process(path, words, masked, written, conditioned)


def main(argv=None):
    options = flags.resolve(Diagrams, parse_args(argv))
    if options.checkpoint:
        model, encoder = open_checkpoint(options.checkpoint)
    else:
        model, encoder = named_model(options.model_config)
    out = files.writable_folder(options.out)
    model = model.to("meta").eval()
    condition = (encoder.patches, encoder.width) if encoder else None
    shapes = anatomy.output_shapes(model, condition)
    facts, parts = anatomy.describe(model, shapes)
    for name, shape, output, values in anatomy.screen_table(model, shapes, options.detailed):
        print(f"{name:<38} {shape:>12} {output:>16} {values:>12}")

    scene, _ = example(options.seed)
    about = encoder_facts(encoder, drawing.draw(scene)) if encoder else None
    paths = draw_captioner(out / "architecture_captioning", model, facts, about, options.seed)
    paths += draw_block(out / "architecture_block", model, facts, parts, options.detailed)
    paths += draw_process(out / "architecture_diffusion", encoder is not None, options.seed)
    print("wrote " + "  ".join(map(str, paths)))


if __name__ == "__main__":
    files.run(main)
