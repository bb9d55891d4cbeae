"""A toy of picture tokens: grids of 3 × 3, two words per colour, and a painter of width 32."""

import numpy as np
import torch

from base.config import ModelConfig
from base.tokenizer import Tokenizer
from image.data import PictureData, write_folder
from image.rows import Vocabulary
from net.painter import Painter
from worlds.language import several
from worlds.scenes import sample_scene

SIDE, CODES = 3, 5


def make_pictures(folder, count: int = 12, side: int = SIDE, codes: int = CODES) -> PictureData:
    """A folder of picture tokens: captioned scenes with random tokens, and no real codes file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    records = []
    for split, size in {"train": count, "val": 4}.items():
        for number in range(size):
            scene = sample_scene(rng, 1 + number % 3)
            captions = several(scene, rng, 2)
            records.append({"split": split, "captions": captions, "scene": scene.to_dict()})
    texts = [text for record in records for text in record["captions"]]
    tokens = rng.integers(0, codes, (len(records), side * side))
    (folder / "made").write_bytes(b"no codes")
    tokenizer = Tokenizer.train(texts, 300)
    write_folder(folder, records, tokens, folder / "made", tokenizer, codes=codes, settings={})
    return PictureData(folder)


def make_painter(vocabulary: Vocabulary, causal: bool = False, **sizes) -> Painter:
    """A painter with strong random weights, so that every input matters."""
    torch.manual_seed(0)
    size = {"d_model": 32, "heads": 2, "layers": 2, "max_length": 60} | sizes
    config = ModelConfig(
        vocab_size=vocabulary.size,
        output_size=vocabulary.output_size,
        causal=causal,
        **({"picture_side": SIDE, "picture_codes": vocabulary.codes} | size),
    )
    model = Painter(config).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3)
    return model
