"""A small corpus of made-up stories, and the folders that scripts make of it: built once, used by many tests."""

import random

import data_prep
import train

SEPARATOR = "<|endoftext|>"
NAMES, PETS, THINGS = (
    ("Ann", "Ben", "Cleo", "Dan"),
    ("cat", "dog", "hen", "owl"),
    ("ball", "kite", "hat", "drum"),
)


def story(rng: random.Random) -> str:
    """A few sentences of a tiny language."""
    name, pet = rng.choice(NAMES), rng.choice(PETS)
    return " ".join(
        f"{name} had a {pet}. The {pet} saw a {rng.choice(THINGS)} and {name} was {rng.choice(('glad', 'sad'))}."
        for _ in range(rng.randint(1, 4))
    )


def write_corpus(path, documents: int = 120, seed: int = 0):
    """A text file of `documents` stories."""
    rng = random.Random(seed)
    path.write_text(f"\n{SEPARATOR}\n".join(story(rng) for _ in range(documents)), encoding="utf-8")
    return path


def make_data(folder, **flags):
    """A data folder from the corpus, with a vocabulary of 300."""
    options = {"vocab_size": 300, "val_fraction": 0.1, **flags}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    data_prep.main(
        ["--input", str(write_corpus(folder.parent / "stories.txt")), "--out", str(folder), *words]
    )
    return folder


TINY = [
    "--d_model",
    "16",
    "--heads",
    "2",
    "--layers",
    "1",
    "--max_length",
    "48",
    "--batch_size",
    "4",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--eval_documents",
    "4",
    "--warmup_steps",
    "2",
]


def make_run(data_dir, out, *flags: str):
    """A run folder from a few steps of a very small model."""
    train.main(["--data_dir", str(data_dir), "--out", str(out), *TINY, "--max_steps", "4", *flags])
    return out
