"""Tiny untrained picture codes and a tiny reader, as files."""

import torch

from image import tokenisers
from net.picture_codes import PictureCodes, PictureCodesConfig
from net.picture_reader import PictureReader, ReaderConfig


def make_codes(path, **sizes):
    """Untrained picture codes for pictures of 32 × 32 pixels: 4 × 4 tokens."""
    torch.manual_seed(0)
    size = {"side": 32, "width": 16, "blocks": 1} | sizes
    tokenisers.save_codes(path, PictureCodes(PictureCodesConfig(**size)), "a test")
    return path


def make_reader(path, **sizes):
    """An untrained reader of pictures of 32 × 32 pixels."""
    torch.manual_seed(0)
    size = {"side": 32, "width": 16, "blocks": 1} | sizes
    tokenisers.save_reader(path, PictureReader(ReaderConfig(**size)), "a test")
    return path
