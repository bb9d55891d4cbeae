"""One page of held-out scenes: captions, drawings, edits, clips, dialogues, marked true or false.

Reads   checkpoints of train_captioning.py (--captioner, --clip_captioner), train_image.py
        (--painter) and train_dialogue.py (--dialogue), the folders of their data, and the picture
        reader
Writes  world.html (--out), a single page that loads nothing

A page of two models on a laptop:
    python -m tools.world_page --captioner checkpoints_caption_poc/best.pt \\
        --dialogue checkpoints_dialogue/best.pt
For real, all models and more scenes:
    python -m tools.world_page --captioner checkpoints_caption_poc/best.pt \\
        --painter checkpoints_image/best.pt --clip_captioner checkpoints_video/best.pt \\
        --dialogue checkpoints_dialogue/best.pt --scored 200

A section without a checkpoint says which command makes it. Captions, clips and dialogues are judged
against the true scene. Painted pictures are judged by the reader, which learnt from true pictures.
The page shows the first scenes of those that are scored.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from base import config, files, flags, images
from base.config import SampleConfig
from base.errors import UserError
from base.flags import setting
from caption import dialogue_scores, pixels, writer
from caption.data import CaptionData
from caption.dialogue_writer import answer_all
from caption.scores import check_features
from image import drawn, stages, studio
from image import writer as painting
from image.data import PictureData
from image.guides import Guidance
from image.studio import Brush, Finding, Studio
from loop import checkpoint, commands, hardware, progress
from show import world
from tools.paint_scores import Eyes
from worlds import changes, drawing, judge, motion_judge
from worlds.motion import program_from_dict
from worlds.scenes import Scene, scene_from_dict

BATCH = 25  # scenes at one time; it changes no caption, picture or answer
READ = "An independent reader, trained on true pictures alone, says what a picture shows."


@dataclass
class Options:
    """The models, their data, and the page."""

    captioner: str | None = setting(None, "a captioner of scenes", metavar="FILE")
    painter: str | None = setting(None, "a network of words and pictures", metavar="FILE")
    clip_captioner: str | None = setting(None, "a captioner of clips", metavar="FILE")
    dialogue: str | None = setting(None, "a model of dialogues", metavar="FILE")
    reader: str = setting(
        stages.shown(stages.READER), "the reader that judges painted pictures", metavar="FILE"
    )
    captions_data: str = setting(
        "data_captions_synthetic", "captioned scenes, for --captioner", metavar="FOLDER"
    )
    pictures_data: str = setting(
        "data_image_tokens", "picture tokens, for --painter", metavar="FOLDER"
    )
    clips_data: str = setting("data_captions_video", "captioned clips", metavar="FOLDER")
    dialogues_data: str = setting("data_dialogues", "scenes with dialogues", metavar="FOLDER")
    split: str = setting("val", "the held-out split of each folder")
    scored: int = setting(40, "scenes of each section that are scored, at most", at_least=1)
    shown: int = setting(8, "of them, scenes that the page shows", at_least=1)
    steps: int = setting(16, "calls of the network for a picture", at_least=1)
    guidance: float = setting(2.0, "away from a picture of no words; 1 means no guidance")
    out: str = setting("world.html", "the page to write", metavar="FILE")
    seed: int = setting(0, "decides the pictures and the changes", at_least=0)
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)
        if self.split == "train":
            raise UserError("--split train", "a split that is held out", "try --split val")


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Options)
    return parser.parse_args(argv)


# ---- captions of scenes and of clips


def played(caption: writer.Caption, tokenizer) -> dict:
    """A caption's pieces, and the call and the probability of each, as the page plays them."""
    hidden = (tokenizer.bos, tokenizer.eos, tokenizer.pad)
    kept = [index for index, id in enumerate(caption.ids) if id not in hidden]
    return {
        "text": caption.text,
        "pieces": [tokenizer.piece(caption.ids[index]) for index in kept],
        "step": [caption.step[index] for index in kept],
        "probability": [caption.probability[index] for index in kept],
    }


def open_captions(options: Options, path: str, folder: str, what: str) -> tuple:
    """A captioner, as `checkpoint.open_model` gives it, and the split that it captions.

    what: scene or program, which the split's records must have.
    Raises UserError if the captioner and the folder do not fit.
    """
    device = hardware.choose_device(options.device)
    opened = checkpoint.open_model(path, device, kinds=("caption",))
    data = CaptionData(folder, options.split)
    check_features(data, opened[2])
    if not data.records[0].get(what):
        kind = {"scene": "drawn scenes", "program": "drawn clips"}[what]
        raise UserError(f"{folder} without {kind}", kind, "name another folder of captions")
    return opened, data


def write_captions(options: Options, opened: tuple, data: CaptionData) -> list[dict]:
    """For each scored scene, its caption as `played` gives it."""
    model, tokenizer, saved = opened
    # Looking back once mends what was revealed too early. A twin never looks back.
    back = 0 if saved["objective"] == "ar" else 1
    settings = SampleConfig(**config.CAPTIONS, revise=back)
    count, result = min(options.scored, len(data)), []
    for first in progress.bar(range(0, count, BATCH), "captions", unit="batch", leave=False):
        numbers = np.arange(first, min(first + BATCH, count))
        seen = writer.standardise(data.features_of(numbers), saved["statistics"], model.device)
        how = {"seed": options.seed, "first": first}
        written = writer.write(model, tokenizer, saved["objective"], seen, settings, **how)
        result += [played(caption, tokenizer) for caption in written]
    return result


def captions(options: Options, path: str) -> tuple[list[dict], list[str]]:
    """Items of the captions of scenes, and what is said of the model."""
    opened, data = open_captions(options, path, options.captions_data, "scene")
    items = write_captions(options, opened, data)
    for number, (item, record) in enumerate(zip(items, data.records, strict=False)):
        scene = scene_from_dict(record["scene"])
        item |= named("captions", options, number, record["captions"][0])
        item["image"] = images.data_uri(drawing.draw(scene))
        item["marks"] = judge.marks(item["text"], scene)
    return items, [model_line(path, opened[2])]


def clips(options: Options, path: str) -> tuple[list[dict], list[str]]:
    """Items of the captions of clips, and what is said of the model."""
    opened, data = open_captions(options, path, options.clips_data, "program")
    items = write_captions(options, opened, data)
    for number, (item, record) in enumerate(zip(items, data.records, strict=False)):
        item |= named("clips", options, number, record["captions"][0])
        if number < options.shown:
            sheet = images.side_by_side(pixels.frames_of(record), 160)
            item["image"] = images.data_uri(sheet, size=640)
        item["marks"] = motion_judge.marks(item["text"], program_from_dict(record["program"]))
    return items, [model_line(path, opened[2])]


# ---- drawings and edits


@dataclass
class Paints:
    """A network that paints, its pictures, the reader, and how pictures are drawn."""

    opened: Studio
    data: PictureData
    eyes: Eyes
    brush: Brush


def open_paints(options: Options, path: str) -> Paints:
    """What drawings and edits need. Raises UserError if one of them is missing or does not fit."""
    device = hardware.choose_device(options.device)
    eyes = Eyes(options.reader, device)  # first: without a reader nothing could be judged
    opened = studio.open_studio(path, options.pictures_data, device)
    settings = SampleConfig(**{**painting.PICTURES, "steps": options.steps})
    brush = Brush(settings, Guidance(options.guidance), seed=options.seed)
    return Paints(opened, PictureData(options.pictures_data), eyes, brush)


def true_picture(record: dict, side: int) -> np.ndarray:
    """The picture of a record's scene: (side, side, 3) uint8."""
    return drawn.picture(scene_from_dict(record["scene"]), side)


def drawings(options: Options, path: str) -> tuple[list[dict], list[str]]:
    """Items of pictures that are painted from prompts, and what is said of them."""
    paints = open_paints(options, path)
    opened, eyes = paints.opened, paints.eyes
    records = paints.data.records(options.split)[: options.scored]
    prompts = [record["captions"][0] for record in records]
    items: list[dict] = []
    for first in progress.bar(range(0, len(prompts), BATCH), "drawings", unit="batch", leave=False):
        batch = prompts[first : first + BATCH]
        painted = opened.paint(batch, paints.brush, first=first)
        pictures = opened.pixels(painted.tokens)
        for row, scene in enumerate(eyes.read(pictures)):
            item = named("drawings", options, first + row, f"painted from: {batch[row]}")
            item |= drawn_tokens(painted, row, opened.side)
            item["text"] = batch[row]
            item["image"] = images.data_uri(Image.fromarray(pictures[row]))
            item["marks"] = judge.marks(batch[row], scene)
            items.append(item)
    true = eyes.read([true_picture(record, opened.codes.config.side) for record in records])
    return items, [model_line(path, opened.saved), f"{READ} {ceiling(prompts, true)}"]


def ceiling(prompts: list[str], seen: list[Scene]) -> str:
    """What the reader says of the true pictures: no painter can be judged better than that."""
    right = [
        is_true
        for prompt, scene in zip(prompts, seen, strict=True)
        for _, is_true in judge.marks(prompt, scene)
    ]
    return f"Of the true pictures it finds {100 * np.mean(right):.0f}% of these claims true."


def drawn_tokens(painted, row: int, side: int) -> dict:
    """When the tokens of a picture were drawn, as the page plays them."""
    step, probability = painted.step[row].tolist(), painted.probability[row].tolist()
    return {"side": side, "step": step, "probability": probability}


def edits(options: Options, path: str) -> tuple[list[dict], list[str]]:
    """Items of changed pictures, one change each, and what is said of them."""
    paints = open_paints(options, path)
    if paints.opened.objective == "ar":
        return [], [f"{path} is a twin, which cannot draw a part of a picture again."]
    rng = np.random.default_rng(options.seed)
    items: list[dict] = []
    records, tokens = paints.data.records(options.split), paints.data.tokens(options.split)
    for number in progress.bar(range(len(records)), "edits", unit="picture", leave=False):
        if len(items) == options.scored:
            break
        texts = changes.possible(records[number]["captions"][0], rng)
        if texts:
            row = torch.from_numpy(np.asarray(tokens[number]).astype(np.int64))
            item = named("edits", options, number, "")
            items.append(item | edit(paints, records[number], row, texts[0], number))
    return items, [model_line(path, paints.opened.saved), READ]


def edit(paints: Paints, record: dict, row: torch.Tensor, change: str, number: int) -> dict:
    """A picture before and after a change, with a mark for each claim of the new caption."""
    opened, old = paints.opened, record["captions"][0]
    changed = changes.change_caption(old, changes.read(change))
    words = opened.wordings(row, old, changed.new, changed.change, paints.brush.seed)
    where = opened.fallen(row, words, Finding(), paints.brush.seed)
    painted = opened.edit(row, where, words.new, paints.brush, number)
    before = Image.fromarray(true_picture(record, opened.codes.config.side))
    after = studio.paste(before, opened.pixels(painted.tokens)[0], where, opened.side)
    (scene,) = paints.eyes.read([np.asarray(after)])
    claims = [*changed.changed, *changed.kept]
    return {
        "text": changed.new,
        "change": change,
        "alt": f"after the change: {change}",
        "before": images.data_uri(before),
        "image": images.data_uri(after),
        "marks": [(judge.explain(claim), judge.holds(claim, scene)) for claim in claims],
        **drawn_tokens(painted, 0, opened.side),
    }


# ---- dialogues


def dialogues(options: Options, path: str) -> tuple[list[dict], list[str]]:
    """Items of dialogues, in which the history holds the model's own answers."""
    device = hardware.choose_device(options.device)
    opened = checkpoint.open_model(path, device, kinds=("dialogue",))
    settings = SampleConfig(**config.CAPTIONS)
    asked = dialogue_scores.open_questions(
        opened, options.dialogues_data, options.split, settings, options.seed
    )
    items: list[dict] = []
    count = min(options.scored, len(asked.data))
    for first in progress.bar(range(0, count, BATCH), "dialogues", unit="batch", leave=False):
        numbers = np.arange(first, min(first + BATCH, count))
        questions = [asked.asked[number] for number in numbers]
        how = {"seed": options.seed, "first": first}
        said = answer_all(asked.answerer, asked.features(numbers), questions, settings, **how)
        for number, row in zip(numbers, said, strict=True):
            record = asked.data.records[number]
            texts = [answer.text for answer in row]
            item = named("dialogues", options, int(number), record["captions"][0])
            item["image"] = images.data_uri(drawing.draw(scene_from_dict(record["scene"])))
            turns = zip(asked.asked[number], texts, asked.truths[number], strict=True)
            item["turns"] = [list(turn) for turn in turns]
            items.append(item)
    return items, [model_line(path, opened[2])]


# ---- the page


@dataclass(frozen=True)
class Section:
    """A section: its title, the flag of its checkpoint, what makes its items, what is counted."""

    title: str
    flag: str
    make: Callable[[Options, str], tuple[list[dict], list[str]]]
    counted: tuple[str, str]


SECTIONS = {
    "captions": Section("Captions", "captioner", captions, ("claims", "captions")),
    "drawings": Section("Drawings", "painter", drawings, ("claims", "painted pictures")),
    "edits": Section("Edits", "painter", edits, ("claims", "changed pictures")),
    "clips": Section("Clips", "clip_captioner", clips, ("claims", "captions")),
    "dialogues": Section("Dialogues", "dialogue", dialogues, ("answers", "dialogues")),
}


def named(kind: str, options: Options, number: int, alt: str) -> dict:
    """What every item has."""
    return {"kind": kind, "name": f"{options.split} {number}", "alt": alt}


def model_line(path: str, saved) -> str:
    """A line that says which model it is."""
    return f"{path}: {checkpoint.describe(saved)}"


def share(items: list[dict]) -> dict:
    """The share of true claims or answers, with its interval over items."""
    every = [world.marks_of(item) for item in items]
    width = max(map(len, every), default=0)
    asked = np.array([[column < len(row) for column in range(width)] for row in every])
    right = np.array([row + [False] * (width - len(row)) for row in every])
    return dialogue_scores.share(right, asked)


def section(name: str, options: Options) -> dict:
    """A section of the page; without a checkpoint it says which command makes one."""
    about = SECTIONS[name]
    path = getattr(options, about.flag)
    lines = [commands.said(command) for command in stages.full(name)]
    told = {"id": name, "title": about.title, "share": None, "items": [], "commands": lines}
    if not is_there(path):
        found = f"no file {path}" if path else "no checkpoint"
        says = f"{lines[-1]} makes the checkpoint for --{about.flag}."
        print(f"{name}: {found}", file=sys.stderr)
        return {**told, "of": f"{found}.", "says": [says]}
    items, says = about.make(options, path)
    told |= {"items": items[: options.shown], "says": says, "of": "no scene to score."}
    if items:
        figure, (claims, of) = share(items), about.counted
        low, high = (100 * bound for bound in figure["accuracy_ci95"])
        told["share"] = f"{100 * figure['accuracy']:.0f}%"
        told["of"] = f"of {figure['questions']} {claims} in {len(items)} {of} are true "
        told["of"] += f"(95% interval {low:.0f} to {high:.0f}%). Shown: {len(told['items'])}."
    print(f"{name}: {told['share'] or '—'} {told['of']}")
    return told


def is_there(path: str | None) -> bool:
    """Whether there is something to open under a checkpoint's name."""
    return bool(path) and (path.startswith("hub:") or Path(path).exists())


def check_any(options: Options) -> None:
    """Raise UserError unless there is a checkpoint at least."""
    names = list(dict.fromkeys(about.flag for about in SECTIONS.values()))
    if not any(is_there(getattr(options, name)) for name in names):
        given = [getattr(options, name) for name in names if getattr(options, name)]
        found = "no file " + ", ".join(given) if given else "no checkpoint"
        expected = "a file for at least one of " + ", ".join(f"--{name}" for name in names)
        raise UserError(found, expected, "train a model first: make world trains all of them")


def main(argv=None):
    options = flags.resolve(Options, parse_args(argv))
    check_any(options)
    files.writable_folder(Path(options.out).parent)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    sections = [section(name, options) for name in SECTIONS]
    facts = {"split": options.split, "scenes scored": f"up to {options.scored} per section"}
    facts |= {"calls per picture": options.steps, "guidance": options.guidance}
    files.write_text(options.out, world.page(sections, facts | {"seed": options.seed}))
    print(f"wrote {options.out}", file=sys.stderr)


if __name__ == "__main__":
    files.run(main)
