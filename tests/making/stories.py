"""Write 600 short stories of a small made-up language: assets/stories.txt.

Reads   nothing
Writes  the file named on the command line

Less than a second:
    python tests/making/stories.py assets/stories.txt

The stories are so regular that a `tiny` model learns their grammar in 200 steps. Names, pets and things return within a
story, so a blank can only be filled right from both of its sides.
"""

import random
import sys
from pathlib import Path

SEPARATOR = "<|endoftext|>"
CHILDREN = {
    "Lily": ("she", "her"),
    "Tim": ("he", "his"),
    "Mia": ("she", "her"),
    "Ben": ("he", "his"),
    "Anna": ("she", "her"),
    "Sam": ("he", "his"),
}
PETS = ("dog", "cat", "duck", "owl")
THINGS = ("ball", "kite", "hat", "drum", "boat", "book")
COLOURS = ("red", "blue", "green", "yellow")
PLACES = ("park", "garden", "forest", "house")
SPOTS = ("under a tree", "behind a rock", "in a box", "near the river")


def story(rng: random.Random) -> str:
    """A story of six to eight sentences: a thing is lost and found, or lent to a friend."""
    name, friend = rng.sample(list(CHILDREN), 2)
    he, his = CHILDREN[name]
    pet = rng.choice(PETS)
    thing = rng.choice(THINGS)
    toy = f"{rng.choice(COLOURS)} {thing}"
    place = rng.choice(PLACES)
    openings = [
        f"Once upon a time there was a child named {name}.",
        f"{name} lived near a {place}.",
    ]
    sentences = [rng.choice(openings), f"{name} had a {toy} and a little {pet}."]
    if rng.random() < 0.5:
        finder = rng.choice([f"The {pet}", friend])
        sentences += [
            f"One day {he} lost the {thing} in the {place}.",
            f"{name} was sad.",
            f"{finder} found the {toy} {rng.choice(SPOTS)}.",
            f"{name} was happy and played with {his} {thing} all day.",
        ]
        return " ".join(sentences)
    sentences += [
        f"One day {friend} came to play in the {place}.",
        f'"May I have your {thing}?" said {friend}.',
    ]
    if rng.random() < 0.6:
        sentences += [
            f'"Yes," said {name}.',
            f"They played with the {toy} and the {pet}.",
            f"{name} and {friend} were best friends.",
        ]
    else:
        sentences += [
            f'"No," said {name}.',
            f"{friend} was sad and went home.",
            f"The next day {name} gave {friend} the {toy}.",
        ]
    return " ".join(sentences)


def text(stories: int = 600, seed: int = 0) -> str:
    """All stories, with the separator that data_prep.py expects between documents."""
    rng = random.Random(seed)
    return f"\n{SEPARATOR}\n".join(story(rng) for _ in range(stories)) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
