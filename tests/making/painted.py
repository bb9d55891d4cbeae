"""A toy of picture tokens: grids of 3 × 3, two words per colour, and a painter of width 32."""

from dataclasses import dataclass, field

import numpy as np
import torch

from base.config import ModelConfig
from base.tokenizer import Tokenizer
from image.rows import Vocabulary
from net.painter import Painter
from worlds.language import several
from worlds.scenes import sample_scene

SIDE, CODES = 3, 5


@dataclass
class ToyData:
    """What `image.data.PictureData` is to its readers: captioned scenes with made-up tokens."""

    count: int = 12
    grid: int = SIDE
    codes: int = CODES
    meta: dict = field(default_factory=lambda: {"fingerprint": "toy"})

    def __post_init__(self):
        rng = np.random.default_rng(0)
        self.scenes = [sample_scene(rng, 1 + number % 3) for number in range(self.count)]
        self.texts = [several(scene, rng, 2) for scene in self.scenes]
        self.tokenizer = Tokenizer.train([text for texts in self.texts for text in texts], 300)

    def records(self, split: str) -> list[dict]:
        pairs = zip(self.texts, self.scenes, strict=True)
        return [{"captions": texts, "scene": scene.to_dict()} for texts, scene in pairs]

    def tokens(self, split: str) -> np.ndarray:
        rng = np.random.default_rng(1)
        return rng.integers(0, CODES, (self.count, SIDE * SIDE)).astype(np.uint16)


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
