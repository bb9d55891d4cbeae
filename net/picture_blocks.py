"""Pictures in blocks: words first, then the picture in blocks from the top, each by diffusion.

    log p(picture | words) = sum over blocks b of log p(block b | words, the blocks before b)

The rows are those of net/painter.py. The words are the first block, and are given. The picture
follows in blocks of n tokens in reading order; n = S is a row of the picture. The bound, the masks
and the pass with two copies are those of net/turns.py.

Why: a step of a plain denoiser learns a token from a few random neighbours. In blocks smaller than
the picture, all blocks above are clean. With `logit_shift`, blocks of one token are nearly the
twin: they differ in the words, which see both sides here, and only earlier words in the twin. So a
start from the twin's weights loses little. Without words they are the twin exactly.

Shapes: B rows, L positions, D width, P places of a picture, S its side, n block size, M selected.
"""

import torch
from torch import Tensor

from base.config import ModelConfig
from base.files import UserError
from net import turns
from net.blocks import BlockDenoise, CleanCopy
from net.painter import Painter


def numbers(words: Tensor, lengths: Tensor | None, length: int, size: int) -> Tensor:
    """The block of each position: (B, L) int64. 0 for words, -1 for padding.

    words: (B,) words of each row. lengths: (B,) real tokens, or None without padding.
    """
    position = torch.arange(length, device=words.device)
    place = position - words[:, None]
    block = block_of(place, size)
    if lengths is None:
        return block
    return torch.where(position < lengths[:, None], block, -1)


def block_of(place: Tensor, size: int) -> Tensor:
    """The block of each place of a picture, from 1; places below 0 are words, block 0."""
    return torch.where(place < 0, 0, 1 + place.clamp(min=0) // size)


def ends_block(number: Tensor) -> Tensor:
    """Whether a position is the last of its block: (B, L) -> (B, L, 1) bool."""
    last = number[:, 1:] != number[:, :-1]
    return torch.nn.functional.pad(last, (0, 1), value=True)[..., None]


def bind(model: Painter, words: Tensor, lengths: Tensor | None, size: int) -> BlockDenoise:
    """The network as a function of a noised and a clean copy of rows, for training and bounds.

    words: (B,) words of each row. lengths: (B,) real tokens, or None without padding.
    """

    def denoise(noised: Tensor, clean: Tensor, select: Tensor) -> Tensor:
        number = numbers(words, lengths, noised.shape[1], size)
        place, vectors = model.places(noised.shape[1], words), model.vectors()
        from_clean, from_noised = turns.masks(number)
        copy = CleanCopy()
        inputs = model.inputs_of(clean, place, vectors)
        x = model.trunk(clean, None, None, None, copy, from_clean, inputs)  # (B, L, D)
        # With a shift, the last token of a clean block predicts the first token of the next block.
        if size > 1 or not model.config.logit_shift:
            inputs = model.inputs_of(noised, place, vectors)
            inside = model.trunk(noised, None, None, None, copy, from_noised, inputs)
            x = torch.where(ends_block(number), x, inside) if model.config.logit_shift else inside
        return model.predict(x, place, select, vectors)

    return denoise


def widest(config: ModelConfig) -> int:
    """The largest block size that a network learnt; 0: the picture as a whole.

    A picture that is drawn again in part is drawn so, because smaller blocks do not see what stands
    behind them.
    """
    sizes = config.trained_sizes
    return sizes[-1] if sizes and sizes[-1] < config.picture_side**2 else 0


def choose(config: ModelConfig, asked: int, steps: int) -> int:
    """The block size to draw a picture with; 0: as a whole, as a plain denoiser draws.

    asked: a size, or 0 for the smallest size that `steps` calls are enough for.
    Raises UserError for a size that the network did not learn, or that needs more calls.
    """
    check(config, asked)
    places = config.picture_side**2
    trained = config.trained_sizes
    if not trained:
        return 0
    for size in [asked] if asked else trained:
        if blocks_of(places, size) <= steps:
            return size if size < places else 0
    size = asked or trained[-1]
    raise UserError(
        f"{steps} calls for a picture in blocks of {size}",
        f"at least {blocks_of(places, size)} calls, one for each block",
        "raise --steps, or choose a larger --block_size",
    )


def check(config: ModelConfig, asked: int) -> None:
    """Raise UserError for an asked block size that the network did not learn; 0 is always right."""
    trained = config.trained_sizes
    if asked and not trained:
        raise UserError(
            f"--block_size {asked} with a network that draws pictures as a whole",
            "a network of train_image.py --block_sizes",
            "leave out --block_size",
        )
    if asked and asked not in trained:
        raise UserError(
            f"--block_size {asked} for a network that learnt other sizes",
            "one of " + ", ".join(map(str, trained)),
            "choose one, or leave out --block_size",
        )


def blocks_of(places: int, size: int) -> int:
    """How many blocks a picture has; the last may be shorter."""
    return -(-places // size)


def calls_of_blocks(steps: int, blocks: int) -> list[int]:
    """`steps` calls shared by the blocks as evenly as they can be, at least one each."""
    ends = [steps * number // blocks for number in range(blocks + 1)]
    return [max(1, after - before) for before, after in zip(ends, ends[1:], strict=False)]
