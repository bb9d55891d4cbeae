"""What a captioner of clips knows without time: controls that change the frames of val.

The features of a clip are those of its frames, one frame after the other. So a clip with its frames
in another order needs no drawing and no encoder.

    one frame    the frame in the middle stands for all frames
    shuffled     the frames in a random order
    reversed     the frames backwards; captions are judged against the reversed program
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from caption.truth import truth
from worlds.motion import program_from_dict, reverse

# From the numbers of clips (B,) to the order of their frames, (B, T) int64.
Orders = Callable[[np.ndarray], np.ndarray]


def reorder(features: Tensor, orders: np.ndarray) -> Tensor:
    """Features (B, T·P, width) with the frames of clip i in the order `orders[i]`, (B, T) int64."""
    by_frame = features.unflatten(1, (orders.shape[1], -1))  # (B, T, P, width)
    clip = torch.arange(len(features))[:, None]
    return by_frame[clip, torch.from_numpy(orders)].flatten(1, 2)


def in_order(data, numbers: np.ndarray, orders: Orders | None) -> Tensor | None:
    """Features of clips `numbers` (B,) of a split with their frames in `orders`; None: as on disk.

    data: a `caption.data.CaptionData`.
    """
    return None if orders is None else reorder(data.features_of(numbers), orders(numbers))


def one_frame(frames: int) -> Orders:
    """The frame in the middle, for all times."""
    return lambda numbers: np.full((len(numbers), frames), frames // 2)


def backwards(frames: int) -> Orders:
    """The frames from the last to the first."""
    return lambda numbers: np.tile(np.arange(frames)[::-1], (len(numbers), 1))


def shuffled(frames: int, seed: int) -> Orders:
    """A random order, a function of the seed and the clip's number alone."""

    def orders(numbers: np.ndarray) -> np.ndarray:
        rows = [np.random.default_rng([seed, int(n)]).permutation(frames) for n in numbers]
        return np.stack(rows)

    return orders


def reversed_record(record: dict) -> dict:
    """The record of a clip that runs backwards, for its judge."""
    return record | {"program": reverse(program_from_dict(record["program"])).to_dict()}


def controls(
    write: Callable[[Orders, str], list[str]], records: list[dict], frames: int, seed: int
) -> dict[str, dict]:
    """{control: figures} of the clips of a split, judged as `truth` does.

    write: from an order of the frames, and a name for the progress bar, to a caption per clip.
    """
    ways = {
        "one frame": (one_frame(frames), records),
        "shuffled": (shuffled(frames, seed), records),
        "reversed": (backwards(frames), [reversed_record(record) for record in records]),
    }
    return {name: truth(write(orders, name), judged) for name, (orders, judged) in ways.items()}
