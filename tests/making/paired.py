"""A small world of pairs: the corpus, a denoiser and a twin of a few steps, and conditional runs of every form."""

import pytest

import prep_conditional_data
import train_conditional
from base.files import UserError
from tests.making.corpus import make_data, make_run

SMALL = [
    "--batch_size",
    "8",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--eval_pairs",
    "6",
    "--warmup_steps",
    "2",
    "--precision",
    "fp32",
]
FLAGS = {
    "context": [],
    "cross": ["--conditioning", "cross", "--stage_1_steps", "4", "--encoder_layers", "1"],
    "ar": ["--objective", "ar"],
}


def make_world(root):
    """root/data, root/denoiser, root/twin, root/pairs; rows of 96 tokens, so that every story fits."""
    data = make_data(root / "data", val_fraction=0.15)
    for name, flags in (("denoiser", []), ("twin", ["--objective", "ar"])):
        make_run(
            data, root / name, *flags, "--max_length", "96", "--layers", "2", "--precision", "fp32"
        )
    prep_conditional_data.main(
        [
            "--denoiser",
            str(root / "denoiser" / "best.pt"),
            "--data_dir",
            str(data),
            "--out",
            str(root / "pairs"),
        ]
    )
    return root


def make_conditional(root, form: str, out, *flags: str):
    """A run folder of a few steps in this form."""
    start = root / ("twin" if form == "ar" else "denoiser") / "best.pt"
    train_conditional.main(
        [
            "--denoiser",
            str(start),
            "--data_dir",
            str(root / "pairs"),
            "--out",
            str(out),
            *SMALL,
            "--max_steps",
            "12",
            *FLAGS[form],
            *flags,
        ]
    )
    return out / "best.pt"


def refusal(main, words, message: str) -> None:
    """The script refuses these words in one line with three parts."""
    with pytest.raises(UserError, match=message) as error:
        main([str(word) for word in words])
    assert all(error.value.parts) and "\n" not in str(error.value)
