"""A toy of picture tokens: grids of 3 × 3, two words per colour, and a painter of width 32."""

import numpy as np
import torch

import train_image
from base.config import ModelConfig
from base.tokenizer import Tokenizer
from image.data import PictureData, write_folder
from image.rows import Vocabulary
from image.tokenisers import fingerprint, save_codes, save_reader
from net.painter import Painter
from net.picture_codes import PictureCodes, PictureCodesConfig
from net.picture_reader import PictureReader, ReaderConfig
from worlds import plans
from worlds.language import several
from worlds.scenes import sample_scene

SIDE, CODES = 3, 9


def make_codes(path, side: int = SIDE) -> PictureCodes:
    """Untrained picture codes of 9 codes, whose pictures have 8 × side pixels."""
    torch.manual_seed(0)
    config = PictureCodesConfig(side=8 * side, levels="3,3", width=16, blocks=1)
    codes = PictureCodes(config)
    # Untrained codes draw the same picture of all tokens, because this layer starts at zero.
    torch.nn.init.normal_(codes.decoder[-2].weight)
    save_codes(path, codes, "a test")
    return codes


def make_reader(path, side: int = SIDE) -> None:
    """An untrained reader."""
    save_reader(path, PictureReader(ReaderConfig(side=8 * side, width=16, blocks=1)), "a test")


def make_pictures(
    folder, count: int = 12, side: int = SIDE, codes: int = CODES, planned: int = 0
) -> PictureData:
    """A folder of picture tokens: captioned scenes with random tokens, and untrained codes.

    planned: the objects that plans have room for; 0: no plans.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    records = []
    for split, size in {"train": count, "val": 4}.items():
        for number in range(size):
            scene = sample_scene(rng, 1 + number % (planned or 3), tidy=bool(planned))
            captions = several(scene, rng, 2)
            records.append({"split": split, "captions": captions, "scene": scene.to_dict()})
    texts = [text for record in records for text in record["captions"]]
    tokens = rng.integers(0, codes, (len(records), side * side))
    make_codes(folder / "made", side)
    settings: dict = {}
    if planned:
        settings = {"plans": planned, "levels": [1, 2], "inside": 0.0}
        settings["picture_codes"] = fingerprint(folder / "made")
    texts += plans.every_word() * 2 if planned else []
    tokenizer = Tokenizer.train(texts, 600 if planned else 300)
    write_folder(
        folder, records, tokens, folder / "made", tokenizer, codes=codes, settings=settings
    )
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


def train(data_dir, out, *flags: str):
    """best.pt of a very small painter, four steps old."""
    sizes = "--d_model 32 --heads 2 --layers 1 --batch_size 4 --warmup_steps 1 --eval_images 2"
    where = ["--data_dir", str(data_dir), "--out", str(out), "--device", "cpu", "--threads", "1"]
    train_image.main([*where, *sizes.split(), "--max_steps", "4", *flags])
    return out / "best.pt"
