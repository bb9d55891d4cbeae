"""Paint pictures of words, caption a picture, or change a picture by words.

Reads   a checkpoint of train_image.py, its folder of picture tokens (--data_dir), and pictures
Writes  pictures/ (--out): a PNG for each picture; --html a page that plays the unmasking

On a laptop:
    python generate_image.py --prompt "a red star above a blue circle" --num_samples 4
    python generate_image.py --caption picture.png
    python generate_image.py --image picture.png --change "the star is green"
    python generate_image.py --image picture.png --change "there is no star" --box 0,0,0.5,0.5
For real, with a page:
    python generate_image.py --prompt "a red star above a blue circle" --num_samples 16 \\
        --steps 64 --html pictures.html

An independent reader, which ships in assets/, judges each picture (--reader none: nobody does).

A change needs the caption of the old picture: --prompt, or the network writes one first. Without
--box the network finds the places that the change affects. All other tokens and pixels stay.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image

from base import files, flags, images
from base.config import RECHECKING, SampleConfig
from base.files import UserError
from base.flags import setting
from image import scores, studio, tokenisers, writer
from image.guides import Guidance
from image.studio import Brush, Finding, Studio
from loop import checkpoint, hardware
from show import pictures
from worlds import plans


@dataclass
class Options:
    """What is painted or changed, and where it goes."""

    checkpoint: str | None = setting(None, "a network; none: the newest below this folder")
    data_dir: str = setting("data_image_tokens", "its folder of picture tokens", metavar="FOLDER")
    prompt: str | None = setting(None, "what to paint; with --image, the old picture in words")
    caption: str | None = setting(None, "a picture to put into words", metavar="FILE")
    image: str | None = setting(None, "a picture to change", metavar="FILE")
    change: str | None = setting(None, 'a change in words, such as "the star is green"')
    box: str | None = setting(
        None, "what is drawn again: left,top,right,bottom as shares of the side", metavar="BOX"
    )
    fell: float = setting(
        0.5, "without --box: nats by which a token's probability must fall", at_least=0
    )
    top_share: float | None = setting(
        None, "without --box: this share of the tokens, in place of --fell", above=0, at_most=1
    )
    num_samples: int = setting(1, "pictures to paint", at_least=1)
    best_of: int = setting(1, "paint as many; the network keeps what it reads best", at_least=1)
    raster: bool = setting(
        False, "left_to_right: row by row, in place of places that are far apart first"
    )
    reader: str = setting(
        tokenisers.EMBEDDED, "the independent reader that judges; none: no reader", metavar="FILE"
    )
    out: str = setting("pictures", "folder for the pictures", metavar="FOLDER")
    html: str | None = setting(None, "write a page that plays the unmasking", metavar="FILE")
    seed: int = setting(0, "decides the pictures", at_least=0)
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)
        self.check_job()

    def check_job(self) -> None:
        """Raise UserError unless the flags are of one job."""
        if self.caption and (self.image or self.prompt or self.change or self.box):
            found = "--caption with --prompt, --image, --change or --box"
            raise UserError(found, "one job at a time", "drop the others")
        if self.caption and self.best_of > 1:
            raise UserError("--best_of with --caption", "a picture to paint", "drop --best_of")
        if not (self.caption or self.image or self.prompt):
            expected = "--prompt, --caption, or --image with --change"
            raise UserError("nothing to do", expected, "add one of them")
        if (self.change or self.box) and not self.image:
            raise UserError("--change or --box without --image", "a picture", "add --image")
        if self.image and not self.change and not (self.box and self.prompt):
            expected = "--change, or --box with --prompt"
            raise UserError("--image without a change", expected, "add --change")
        if self.box:
            studio.read_box(self.box)

    def check_blocks(self, settings: SampleConfig) -> None:
        """Raise UserError for --block_size with a picture that is drawn again in part."""
        if settings.block_size and self.image:
            raise UserError(
                f"--block_size {settings.block_size} with --image",
                "--prompt alone: a part is drawn in the largest blocks that the network learnt",
                "leave out --block_size",
            )


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Options)
    parser.add_settings(Guidance)
    parser.add_settings(SampleConfig, skip=("carry", *RECHECKING), **writer.PICTURES)
    return parser.parse_args(argv)


def verdict(reader, words: str, image: Image.Image) -> dict:
    """What the reader says of a picture: true (None: not judged), and notes."""
    if reader is None:
        return {"true": None, "notes": []}
    small = images.resize_crop(image, reader.config.side)
    (scene,) = reader.read(tokenisers.to_pixels(small[None], reader.device))
    return scores.verdict(words, scene)


def finish(options: Options, reader, drawn, words: str, results: list[tuple], **more) -> list[dict]:
    """Write the pictures, and say what they show. results: (name, image). Returns page items."""
    items = []
    for row, (name, image) in enumerate(results):
        path = Path(options.out) / f"{name}.png"
        studio.save_image(path, image)
        said = verdict(reader, words, image)
        mark = {None: "not judged", True: "true", False: "false"}[said["true"]]
        print(f"{path}: {words}   ({mark})")
        for note in said["notes"]:
            print(f"    {note}")
        if drawn.plans:
            said["plan"] = plans.short(drawn.plans[row])
            print(f"    plan: {said['plan']}")
        item = {"image": images.data_uri(image), "name": name, "text": words, **said, **more}
        item["step"] = drawn.step[row].tolist()
        item["probability"] = drawn.probability[row].tolist()
        items.append(item)
    return items


def paint(opened: Studio, options: Options, brush: Brush, reader) -> list[dict]:
    """--prompt: pictures of the words."""
    words = options.prompt or ""
    drawn = opened.paint([words] * options.num_samples, brush)
    results = []
    for number, pixels in enumerate(opened.pixels(drawn.tokens)):
        results.append((f"{number:03d}", Image.fromarray(pixels)))
    return finish(options, reader, drawn, words, results, side=opened.side)


def change(opened: Studio, options: Options, brush: Brush, reader) -> list[dict]:
    """--image: the picture after the change."""
    original, tokens = opened.open_picture(options.image)
    old = options.prompt
    if not old:
        old = opened.describe(tokens[None], seed=options.seed)[0].text
        print(f"the network says: {old}", file=sys.stderr)
    changed = studio.read_change(old, options.change) if options.change else None
    new = changed.new if changed else old
    wanted = changed.change if changed else None
    if options.box:
        where = studio.places_of(studio.read_box(options.box), opened.side)
        words = opened.wordings(tokens, old, new, wanted, options.seed, where)
    else:
        words = opened.wordings(tokens, old, new, wanted, options.seed)
        finding = Finding(options.fell, options.top_share)
        where = opened.fallen(tokens, words, finding, options.seed)
    if words.is_new:
        print("the change does not fit what the network reads: it plans anew", file=sys.stderr)
    print(f"drawn again: {int(where.sum())} of {len(where)} tokens", file=sys.stderr)
    items = []
    for number in range(options.num_samples):
        drawn = opened.edit(tokens, where, words.new, brush, number)
        painted = opened.pixels(drawn.tokens)[0]
        image = studio.paste(original, painted, where, opened.side)
        name = f"{Path(options.image).stem}_{number:03d}"
        more = {"side": opened.side, "before": images.data_uri(original)}
        items += finish(options, reader, drawn, new, [(name, image)], **more)
    return items


def main(argv=None):
    arguments = parse_args(argv)
    options, guidance = flags.resolve(Options, arguments), flags.resolve(Guidance, arguments)
    settings = flags.resolve(SampleConfig, arguments, writer.PICTURES)
    options.check_blocks(settings)
    for folder in filter(None, (options.out, options.html and str(Path(options.html).parent))):
        files.writable_folder(Path(folder))
    torch.set_num_threads(options.threads or torch.get_num_threads())
    path = options.checkpoint or checkpoint.newest(("image",))
    device = hardware.choose_device(options.device)
    opened = studio.open_studio(path, options.data_dir, device)
    print(f"{path}: {checkpoint.describe(opened.saved)}", file=sys.stderr)
    opened.check_guidance(guidance)
    brush = Brush(settings, guidance, options.raster, options.seed, options.best_of)
    opened.check_best_of(brush)
    if options.caption:
        _, tokens = opened.open_picture(options.caption)
        (said,) = opened.describe(tokens[None], seed=options.seed)
        tokens = said.words - 1 + opened.vocabulary.plan  # [BOS] is given
        print(f"{options.caption}: {said.text}   ({said.nats / tokens:.2f} nats/token)")
        if opened.vocabulary.plan:
            print(f"    plan: {plans.short(said.plan)}")
        return
    reader = None if options.reader == "none" else tokenisers.open_reader(options.reader, device)
    items = (change if options.image else paint)(opened, options, brush, reader)
    if options.html:
        facts = {"checkpoint": Path(path).name, "sampler": settings.sampler}
        facts |= {"steps": settings.steps, "best of": options.best_of, "seed": options.seed}
        facts |= asdict(guidance)
        files.write_text(options.html, pictures.page(items, facts))
        print(f"wrote {options.html}", file=sys.stderr)


if __name__ == "__main__":
    files.run(main)
