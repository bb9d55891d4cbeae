"""Draw scenes with a dialogue about each, and compute their image features once.

Reads   nothing; --encoder names a frozen image encoder (default: the small one in assets/)
Writes  data_dialogues/ (--out): images/, captions.jsonl with `turns` in every line,
        tokenizer.json, features.npy, meta.json

A small folder on a laptop:
    python prep_dialogue.py --num_train 500 --num_val 50
For a training:
    python prep_dialogue.py --num_train 5000 --num_val 200

A dialogue begins with --looks turns, in which the model notes what it sees, an object in each turn.
Ten questions follow, each with its true answer. A note of the objects that the question concerns
stands before the answer (--notes). The folder is a captions folder too: each image has true
captions. With --lists, training images also have captions that list all objects. Splits:
train and val are alike. held_pair shows pairs of colour and shape that never appear in training,
and long has five objects.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from base import files, flags
from base.flags import setting
from caption import data, dialogue, scene_folder
from caption.features import Work
from net import image_encoders
from worlds import dialogues, language, looks, notes, talk
from worlds.dialogues import Turn
from worlds.scenes import Scene, relation

CAPTION_STREAM = 11  # of the captions' generator; a dialogue's own generator is another


@dataclass
class Dialogues:
    """The dialogues. They decide every image and word, and are kept in meta.json."""

    num_train: int = setting(5000, "training images", at_least=10)
    num_val: int = setting(200, "images in val and in each test split", at_least=2)
    noise: int = setting(2, "images have noise 0 to this", at_least=0, at_most=3)
    captions: int = setting(1, "true captions per image", at_least=1)
    lists: int = setting(
        0, "how often a list of all objects is a training image's caption, too", at_least=0
    )
    looks: int = setting(
        looks.LOOKS, "turns before the questions that name an object each; 0: none", at_least=0
    )
    notes: bool = setting(
        True, "before its answer, the model notes which objects a question concerns"
    )
    vocab_size: int = setting(768, "most tokens of the BPE: of questions, answers and captions")
    seed: int = setting(0, "decides every scene, pixel and word", at_least=0)

    def __post_init__(self):
        flags.check(self)

    def facts(self) -> dict:
        """What settings.json and meta.json say of the dialogues."""
        later = {"turns": dialogues.TURNS, "values_in_notes": self.notes}
        return flags.to_dict(self) | later

    def sizes(self) -> dict[str, int]:
        """{split: number of images}."""
        others = {split: self.num_val for split in dialogues.HELD}
        return {"train": self.num_train, "val": self.num_val} | others


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Dialogues)
    parser.add_settings(Work, out="data_dialogues", encoder=image_encoders.EMBEDDED)
    return parser.parse_args(argv)


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """A true caption. Two objects of a dialogue may slant: no relation is true of them then."""
    first, second = scene.objects[:2]
    slants = relation(first, second) is None and relation(second, first) is None
    if len(scene.objects) == 2 and slants:
        return language.describe_many(scene, rng)
    return language.describe(scene, rng)


def make_record(folder: Path, wanted: Dialogues, split: str, number: int) -> dict:
    """Draw image `number` of a split, write it, and return its line of captions.jsonl."""
    scene, turns = dialogues.sample(split, number, wanted.seed, wanted.noise)
    stream = [wanted.seed, dialogues.SPLITS.index(split), number, CAPTION_STREAM]
    rng = np.random.default_rng(stream)
    texts = [describe(scene, rng) for _ in range(wanted.captions)]
    if split == "train":  # the judge of captions does not read lists
        texts += [looks.listed(scene)] * wanted.lists
    record = scene_folder.make_record(folder, split, number, scene, texts)
    if wanted.notes:
        turns = noted(scene, turns)
    return record | {"turns": [turn.to_dict() for turn in looked(scene, wanted.looks) + turns]}


def looked(scene: Scene, count: int) -> list[Turn]:
    """The turns of `count` looks at a scene."""
    pairs = zip(looks.questions(count), looks.answers(scene, count), strict=True)
    return [Turn(question, answer, looks.FAMILY) for question, answer in pairs]


def noted(scene: Scene, turns: list[Turn]) -> list[Turn]:
    """The turns of a dialogue, each with its note."""
    found = notes.of_dialogue([turn.question for turn in turns], scene)
    return [replace(turn, note=note) for turn, note in zip(turns, found, strict=True)]


def texts_of(records: list[dict]) -> list[str]:
    """What the tokenizer learns from: the captions, questions and answers of training.

    All numbers stand there twice: scenes of test splits have more objects, and each is a token.
    """
    texts = data.texts_of(records, "train")
    texts += [dialogue.spaced(number) for number in talk.NUMBERS] * 2
    for record in records:
        if record["split"] == "train":
            for turn in record["turns"]:
                said = dialogue.slot_text(turn)
                texts += [dialogue.spaced(turn["question"]), dialogue.spaced(said)]
    return texts


def main(argv=None):
    arguments = parse_args(argv)
    wanted = flags.resolve(Dialogues, arguments)
    work = flags.resolve(Work, arguments)
    scene_folder.make(wanted, work, make_record, texts_of, "train_dialogue.py")


if __name__ == "__main__":
    files.run(main)
