"""Whether painted pictures show what their words say, captions are true, and edits do their work.

Reads   checkpoints of train_image.py (--checkpoint, --twin), their folder of picture tokens, and an
        independent reader, which was trained on true pictures alone
Writes  a table on the screen; with --json FILE all figures

On a laptop:
    python -m tools.paint_scores --checkpoint checkpoints_image/best.pt --prompts 20 --edits 10 \\
        --step_counts 8
For real, all prompts of three splits, next to the twin:
    python -m tools.paint_scores --checkpoint checkpoints_image/best.pt \\
        --twin checkpoints_image_ar/best.pt --json scores.json

The reader is not perfect. So its figures on true pictures, and on true pictures that went through
the tokens, stand above the figures of painted pictures: they are the ceiling. Captions of true
pictures need no reader: they are judged on the scene itself. So are plans, on the scene that they
tell. A network of one direction is scored on this direction alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from base import files, flags, images, metrics
from base.config import RECHECKING, SampleConfig
from base.flags import setting
from image import drawn, studio, tokenisers, writer
from image.data import PictureData
from image.guides import Guidance
from image.scores import claim_figures, seen_figures
from image.studio import Brush, Finding, Studio
from loop import checkpoint, hardware, progress
from net import picture_blocks
from worlds import changes, plans
from worlds.changes import Changed
from worlds.judge import holds
from worlds.reader import parse
from worlds.scenes import Scene, scene_from_dict

KINDS = ("changed", "kept", "both")
YES_OR_NO = (*KINDS, *(f"ceiling_{name}" for name in KINDS), "before")
COLUMNS = ("truthful", "exact", "claims", "recall", "colour", "shape")


@dataclass
class Options:
    """What is scored."""

    checkpoint: str | None = setting(None, "a network; none: the newest below this folder")
    twin: str | None = setting(None, "its twin, which is scored too", metavar="FILE")
    reader: str = setting(
        tokenisers.EMBEDDED, "the independent reader; embedded: the shipped reader", metavar="FILE"
    )
    data_dir: str = setting("data_image_tokens", "folder of picture tokens", metavar="FOLDER")
    splits: str = setting("val,held_pair,held_relation", "splits with commas between them")
    prompts: int = setting(100, "prompts of each split: first captions; 0: all", at_least=0)
    step_counts: str = setting("8,16,64", "calls of the network: numbers with commas")
    captions: int = setting(100, "captions of each split's true pictures; 0: none", at_least=0)
    edits: int = setting(100, "changes of val's pictures; 0: none", at_least=0)
    best_of: int = setting(
        1, "paint as many of each, and keep the picture that the network reads best", at_least=1
    )
    raster: bool = setting(False, "left_to_right: row by row, in place of far places first")
    batch_size: int = setting(25, "pictures at one time; it does not change them", at_least=1)
    json: str | None = setting(None, "write all figures here", metavar="FILE")
    seed: int = setting(0, "decides the pictures", at_least=0)
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)
        flags.numbers("step_counts", self.step_counts)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Options)
    parser.add_settings(Guidance)
    skip = ("steps", "carry", *RECHECKING)
    parser.add_settings(SampleConfig, skip=skip, **sampling())
    return parser.parse_args(argv)


def sampling() -> dict:
    """How pictures are drawn, without the number of calls."""
    return {name: value for name, value in writer.PICTURES.items() if name != "steps"}


class Eyes:
    """The reader on pictures of any size."""

    def __init__(self, path: str, device: torch.device):
        self.reader = tokenisers.open_reader(path, device)

    def read(self, pictures: np.ndarray | list) -> list[Scene]:
        """Pictures (B, X, X, 3) uint8 -> the scenes that they show."""
        side = self.reader.config.side
        small = [images.resize_crop(Image.fromarray(np.asarray(p)), side) for p in pictures]
        return self.reader.read(tokenisers.to_pixels(np.stack(small), self.reader.device))


def figures(captions: list[str], seen: list[Scene], true: list[Scene]) -> dict:
    """What the words claim of the scenes seen, and what was seen of the true scenes.

    A painted picture need not be the true scene, so places are no error of it: `recall`, `colour`
    and `shape` are meant for true pictures.
    """
    return claim_figures(captions, seen) | {"seen": seen_figures(seen, true)}


def paint_all(
    opened: Studio, prompts: list[str], brush: Brush, size: int, name: str
) -> tuple[np.ndarray, list[Scene]]:
    """A picture for each prompt, (N, X, X, 3) uint8, and the scene of each plan.

    There are no scenes without plans. A text that is no plan counts as an empty scene.
    """
    painted, planned = [], []
    size = max(1, size // brush.best_of)
    for first in progress.bar(range(0, len(prompts), size), name, unit="batch", leave=False):
        drawing = opened.paint(prompts[first : first + size], brush, first=first)
        painted.append(opened.pixels(drawing.tokens))
        planned += [plans.read(text) or Scene() for text in drawing.plans]
    return np.concatenate(painted), planned


def describe_all(opened: Studio, tokens: torch.Tensor, options: Options, name: str) -> list[str]:
    """A caption for each picture (N, P)."""
    said: list[str] = []
    size = options.batch_size
    for first in progress.bar(range(0, len(tokens), size), name, unit="batch", leave=False):
        found = opened.describe(tokens[first : first + size], seed=options.seed, first=first)
        said += [caption.text for caption in found]
    return said


def score_split(
    opened: dict[str, Studio], data: PictureData, split: str, eyes: Eyes, options: Options, brush
) -> dict[str, dict]:
    """{source: figures} of a split: the ceilings, then each network at each number of calls."""
    records = data.records(split)
    count = options.prompts or len(records)
    records = records[:count]
    prompts = [record["captions"][0] for record in records]
    true = [scene_from_dict(record["scene"]) for record in records]
    first = next(iter(opened.values()))
    tokens = torch.from_numpy(np.asarray(data.tokens(split)[:count]).astype(np.int64))
    originals = np.stack([drawn.picture(scene, first.codes.config.side) for scene in true])
    result = {"true pictures": figures(prompts, eyes.read(originals), true)}
    result["true tokens"] = figures(prompts, eyes.read(first.pixels(tokens)), true)
    for name, network in opened.items():
        if options.captions and network.writes:
            some = tokens[: options.captions]
            said = describe_all(network, some, options, f"{split}: {name}, captions")
            result[f"{name}, captions"] = claim_figures(said, true[: len(some)])
        if network.paints:
            where = f"{split}: {name}"
            scored = score_pictures(network, prompts, true, eyes, options, brush, where)
            result |= {f"{name}, {label}": row for label, row in scored.items()}
    return result


def score_pictures(
    network: Studio,
    prompts: list[str],
    true: list[Scene],
    eyes: Eyes,
    options: Options,
    brush: Brush,
    where: str,
) -> dict[str, dict]:
    """{label: figures} of the pictures of a network, at each number of calls, and of its plans."""
    steps, size = flags.numbers("step_counts", options.step_counts), brush.settings.block_size
    if network.objective == "ar":  # one token per call
        steps, size = [network.side**2], 0
    result = {}
    for calls in steps:
        own = replace(brush, settings=replace(brush.settings, steps=calls, block_size=size))
        if network.objective == "ar":  # its rows hide no words
            own = replace(own, guidance=Guidance(brush.guidance.guidance))
        if not network.reads_own:
            own = replace(own, best_of=1)
        label = f"{calls} calls" + (f", best of {own.best_of}" if own.best_of > 1 else "")
        painted, planned = paint_all(network, prompts, own, options.batch_size, f"{where}, {label}")
        if planned:  # the same plans at all numbers of calls, unless a choice was made
            name = f"{label}, plans" if own.best_of > 1 else "plans"
            result[name] = claim_figures(prompts, planned)
        seen = eyes.read(painted)
        shown = figures(prompts, seen, true)
        if not planned:
            result[label] = shown
            continue
        result[f"{label} and {network.vocabulary.plan} for the plan"] = shown
        # Whether the pictures show what was planned.
        result[f"{label}, of its plan"] = {"seen": seen_figures(seen, planned)}
    return result


def score_edits(opened: Studio, data: PictureData, eyes: Eyes, options: Options, brush) -> dict:
    """Changes of val's pictures, one each, by the places that the network finds.

    changed: the changed claims are true. kept: all other claims are true. both. before: all claims
    of the old caption were true of the old picture, by the same reader. same: no token outside of
    the places has changed. again: share of the tokens drawn again. new_plan:
    the change did not fit the plan that was read, so the whole picture was planned again.
    ceiling_…: the same three of the true picture after the change, its tokens in the same places.
    """
    rng = np.random.default_rng(options.seed)
    rows: dict[str, list[float]] = {}
    records, tokens = data.records("val"), data.tokens("val")
    for number in progress.bar(range(len(records)), "edits", leave=False):
        if len(rows.get("both", [])) == options.edits:
            break
        caption = records[number]["captions"][0]
        texts = changes.possible(caption, rng)
        if not texts:
            continue
        changed = changes.change_caption(caption, changes.read(texts[0]))
        row = torch.from_numpy(np.asarray(tokens[number]).astype(np.int64))
        words = opened.wordings(row, caption, changed.new, changed.change, options.seed)
        where = opened.fallen(row, words, Finding(), options.seed)
        drawing = opened.edit(row, where, words.new, brush, number)
        scene = scene_from_dict(records[number]["scene"])
        found = judged_edit(opened, scene, changed, where, drawing.tokens[0], eyes)
        found |= {
            "same": bool((drawing.tokens[0] == row)[~where].all()),
            "again": float(where.double().mean()),
            "new_plan": words.is_new,
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(float(value))
    return summary(rows)


def judged_edit(
    opened: Studio,
    scene: Scene,
    changed: Changed,
    where: torch.Tensor,
    tokens: torch.Tensor,
    eyes: Eyes,
) -> dict[str, bool]:
    """Whether a picture shows its change: {name: yes or no}, as in `score_edits`.

    where: (P,) bool, the places drawn again. tokens: (P,) int64 after the change.
    """
    side = opened.codes.config.side
    original = drawn.picture(scene, side)
    pictures = [original, after_change(opened, original, tokens, where)]
    try:
        true = drawn.picture(changes.change_scene(scene, changed.change), side)
        ideal = opened.tokens(true[None])[0]
        pictures.append(after_change(opened, original, ideal, where))
    except changes.Impossible:  # the words fit, but not the scene
        pass
    old, *seen = eyes.read(pictures)
    result = {"before": all(holds(claim, old) for claim in parse(changed.old))}
    for prefix, new in zip(("", "ceiling_"), seen, strict=False):
        is_changed = all(holds(claim, new) for claim in changed.changed)
        is_kept = all(holds(claim, new) for claim in changed.kept)
        result[f"{prefix}changed"], result[f"{prefix}kept"] = is_changed, is_kept
        result[f"{prefix}both"] = is_changed and is_kept
    return result


def after_change(
    opened: Studio, original: np.ndarray, tokens: torch.Tensor, where: torch.Tensor
) -> np.ndarray:
    """The pixels of a picture whose places `where` (P,) bool show these tokens (P,)."""
    painted = opened.pixels(tokens[None])[0]
    return np.asarray(studio.paste(Image.fromarray(original), painted, where, opened.side))


def can_edit(network: Studio) -> bool:
    """Whether a network can draw a part of a picture again, after a change of its plan if any."""
    reads = network.writes or not network.vocabulary.plan
    return network.objective == "diffusion" and network.paints and reads


def summary(rows: dict[str, list[float]]) -> dict:
    """The mean of each figure of the edits; of yes and no, its interval too."""
    result: dict = {"edits": len(next(iter(rows.values()), []))}
    for name, values in rows.items():
        result[name] = float(np.mean(values))
        if name in YES_OR_NO:
            result[f"{name}_ci95"] = metrics.share_interval(int(sum(values)), len(values))
    return result


def check_calls(network: Studio, settings: SampleConfig, options: Options) -> None:
    """Raise UserError for blocks that the network cannot paint in so few calls, before all work."""
    config = network.model.config
    picture_blocks.check(config, settings.block_size)
    if network.paints and network.objective == "diffusion":
        for calls in flags.numbers("step_counts", options.step_counts):
            picture_blocks.choose(config, settings.block_size, calls)


def lines(result: dict) -> list[str]:
    """What is printed: a table of each split in percent, and a line about the edits."""
    table = [["split", "pictures", *COLUMNS]]
    for split, sources in result["splits"].items():
        for name, row in sources.items():
            cells = []
            for column in COLUMNS:
                of_scenes = name.startswith("true") or "claims" not in row
                values = row["seen"] if of_scenes and column not in row else row
                shown = column in values
                cells.append(metrics.interval(values, column, scale=100, digits=1) if shown else "")
            table.append([split, name, *cells])
    printed = [metrics.markdown(table)]
    if result.get("edits", {}).get("edits"):
        edits = result["edits"]
        parts = [f"{edits['edits']} edits"]
        for name in (*YES_OR_NO, "same", "again", "new_plan"):
            if name not in edits:  # no change fitted its scene
                continue
            parts.append(f"{name} {metrics.interval(edits, name, scale=100, digits=1)}")
        printed.append("  ".join(parts))
    return printed


def main(argv=None):
    arguments = parse_args(argv)
    options, guidance = flags.resolve(Options, arguments), flags.resolve(Guidance, arguments)
    settings = flags.resolve(SampleConfig, arguments, sampling())
    if options.json:
        files.writable_folder(Path(options.json).parent)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    device = hardware.choose_device(options.device)
    path = options.checkpoint or checkpoint.newest(("image",))
    opened = {"model": studio.open_studio(path, options.data_dir, device)}
    if options.twin:
        opened["twin"] = studio.open_studio(options.twin, options.data_dir, device)
    check_calls(opened["model"], settings, options)
    opened["model"].check_guidance(guidance)
    data, eyes = PictureData(options.data_dir), Eyes(options.reader, device)
    brush = Brush(settings, guidance, options.raster, options.seed, options.best_of)
    opened["model"].check_best_of(brush)
    result: dict = {
        "checkpoint": str(path),
        "settings": flags.to_dict(settings),
        "guidance": flags.to_dict(guidance),
        "best_of": options.best_of,
        "splits": {},
    }
    for split in options.splits.split(","):
        result["splits"][split] = score_split(opened, data, split, eyes, options, brush)
    if options.edits and can_edit(opened["model"]):
        # A part of a picture is drawn again in the network's own way: --block_size is of pictures.
        whole = replace(brush, settings=replace(settings, block_size=0))
        result["edits"] = score_edits(opened["model"], data, eyes, options, whole)
    for line in lines(result):
        print(line)
    if options.json:
        files.write_json(options.json, result)


if __name__ == "__main__":
    files.run(main)
