"""Caption images or clips with a trained captioner: one of them, a folder, or a held-out split.

Reads   a checkpoint of train_captioning.py (default: the newest below this folder), and images
Writes  captions to the screen; --json lines; --coco a COCO results file; --html a gallery page

Seconds on a laptop:
    python generate_caption.py --use_val_set --num_samples 5
    python generate_caption.py --image picture.png --num_samples 3
    python generate_caption.py --image picture.png --template "a [MASK] red [MASK]"
A clip, with a captioner of clips; the file may be a GIF, an MP4 or a folder of frames:
    python generate_caption.py --checkpoint runs/video/best.pt --video clip.gif
A folder, in batches; a second run with the same --json continues where the first run stopped:
    python generate_caption.py --image_dir photos --json captions.jsonl --html gallery.html

Each caption is printed with its bound in nats per token, given the image. A low bound means that
the captioner is sure.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from base import config, files, flags
from base.config import SampleConfig
from base.files import UserError
from base.flags import setting
from base.templates import template_row
from caption import features, outputs, resumed, sources, store, writer
from caption.sources import Source
from caption.writer import Caption
from loop import checkpoint, hardware, progress
from net.image_encoders import Encoder

# Several captions of a single image should differ.
SEVERAL = {"temperature": 0.8}
WRITING = ("template", "guidance", "rerank", "choose", "penalty", "seed")  # decide a caption too


@dataclass
class Options:
    """How captions are written, and where they go."""

    checkpoint: str | None = setting(None, "a captioner; none: the newest below this folder")
    adapter: str | None = setting(None, "an adapter to merge into it", metavar="FILE")
    store: str | None = setting(
        None,
        "for a captioner of --retrieve: folder whose training captions it reads",
        metavar="FOLDER",
    )
    template: str | None = setting(
        None, 'a caption with blanks, as in "a [MASK] red [MASK]"; [MASK*3] is three tokens'
    )
    guidance: float = setting(1.0, "away from the blind model; 1 means no guidance")
    rerank: int = setting(1, "captions of different lengths per image; one is kept", at_least=1)
    choose: str = setting(
        "bound",
        "with --rerank: keep the likeliest caption, or the caption most like the others",
        choices=config.CHOOSE,
    )
    penalty: float = setting(0.5, "with --rerank: weight of the blind model's bound")
    batch_size: int = setting(32, "images per batch; it does not change captions", at_least=1)
    html: str | None = setting(None, "write a gallery page that plays the unmasking")
    json: str | None = setting(None, "write one JSON object per line, after each batch")
    coco: str | None = setting(None, "write a COCO results file: [{image_id, caption}]")
    strict: bool = setting(False, "end with status 1 if an image had to be skipped")
    seed: int = setting(0, "decides the captions at a --temperature above 0")
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)


@dataclass
class Captioner:
    """A captioner, its checkpoint (path and content), its image encoder, its store if any."""

    path: Path
    model: torch.nn.Module
    tokenizer: object
    saved: dict
    encoder: Encoder
    template: list[int] | None = None
    shelf: store.Store | None = None

    @property
    def objective(self) -> str:
        return self.saved["objective"]


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Source)
    parser.add_settings(Options)
    several = {"temperature": f"0; {SEVERAL['temperature']} for several captions of --image"}
    parser.add_settings(SampleConfig, said=several, **config.CAPTIONS)
    return parser.parse_args(argv)


def open_captioner(options: Options) -> Captioner:
    """The captioner and its encoder. Raises UserError if they do not fit the options."""
    path = Path(options.checkpoint) if options.checkpoint else checkpoint.newest(("caption",))
    device = hardware.choose_device(options.device)
    model, tokenizer, saved = checkpoint.open_model(
        path, device, kinds=("caption",), adapter=options.adapter
    )
    print(f"{path}: {checkpoint.describe(saved)}", file=sys.stderr)
    if saved["objective"] == "ar" and (
        options.template or options.guidance != 1 or options.rerank > 1
    ):
        found = "--template, --guidance or --rerank for a twin"
        raise UserError(found, "none of them", "drop them: they are the diffusion model's")
    shelf = store.open_store(options.store, (model, tokenizer, saved))
    encoder = features.open_encoder(saved, path, model.device, has_store=shelf is not None)
    template = None  # read before any image, so that a wrong template costs no time
    if options.template:
        template = template_row(options.template, tokenizer, model.config.max_length)
    return Captioner(path, model, tokenizer, saved, encoder, template, shelf)


def write_captions(
    captioner: Captioner, seen: torch.Tensor, settings: SampleConfig, options: Options, first: int
) -> list[Caption]:
    """A caption with its bound for each image. seen: features (B, P, width); first: row number."""
    model, tokenizer = captioner.model, captioner.tokenizer
    seen = store.look_at(model, tokenizer, captioner.saved["statistics"], captioner.shelf, seen)
    common = {"guidance": options.guidance, "seed": options.seed, "first": first}
    if options.rerank > 1 and captioner.template is None:
        common |= {"choose": options.choose, "penalty": options.penalty}
        return writer.best_of(model, tokenizer, seen, settings, options.rerank, **common)
    objective, template = captioner.objective, captioner.template
    written = writer.write(model, tokenizer, objective, seen, settings, template=template, **common)
    # The bound is computed again from the finished caption: it does not depend on the sampler.
    ids = [caption.ids for caption in written]
    writer.set_bounds(written, writer.bounds(model, tokenizer, objective, seen, ids))
    return written


def caption_all(
    captioner: Captioner,
    found: list[tuple[str, dict]],
    settings: SampleConfig,
    options: Options,
    rows: list[dict],
    made: dict,
) -> tuple[list[dict], list[str]]:
    """Caption all images, print the captions and append them to `rows`.

    made: what each row says of its origin. After each batch, --json is written. Returns the
    gallery's items, also of the rows of an earlier run, and the skipped paths.
    """
    skipped: list[str] = []
    items = resumed.shown_again(rows) if options.html else []
    starts = range(0, len(found), options.batch_size)
    for start in progress.bar(starts, unit="batch"):
        batch = found[start : start + options.batch_size]
        opened = sources.open_images(batch, skipped, captioner.encoder.frames)
        if not opened:
            continue
        seen = captioner.encoder.features([image for _, _, image in opened])  # (B, P, width)
        # The number of the row seeds its draws, so a continued run draws as one run.
        written = write_captions(captioner, seen, settings, options, len(rows))
        for (path, record, image), caption in zip(opened, written, strict=True):
            rows.append(outputs.row(path, record, caption, captioner.tokenizer) | made)
            if options.html:
                items.append(outputs.gallery_item(rows[-1], record, image))
            print(f"{path}: {caption.text}   ({caption.bound:.2f} nats/token)")
        if options.json:
            # All rows each time: the file is whole after every batch, whenever a kill comes.
            outputs.write_rows(options.json, rows)
    return items, skipped


def main(argv=None):
    arguments = parse_args(argv)
    source = flags.resolve(Source, arguments)
    options = flags.resolve(Options, arguments)
    # At temperature 0 all captions of an image would be the same.
    several = SEVERAL if (source.image or source.video) and source.num_samples > 1 else {}
    settings = flags.resolve(SampleConfig, arguments, several)
    found = sources.images_of(source)
    # Writable before anything long begins.
    for path in filter(None, (options.html, options.json, options.coco)):
        files.writable_folder(Path(path).parent)
    if options.threads:
        torch.set_num_threads(options.threads)
    captioner = open_captioner(options)
    sources.check(found, source, captioner.encoder.frames, captioner.path)
    writing = {name: getattr(options, name) for name in WRITING}
    if captioner.shelf is not None:  # old lines have no such entry, and stay valid
        writing["store"] = captioner.shelf.fingerprint
    made = resumed.made_by(captioner.model, captioner.saved, settings, writing)
    # Only a folder is continued; otherwise an old --json is replaced.
    rows = resumed.read_rows(options.json, made) if source.image_dir else []
    # By path, not by number: new files in the folder change the numbers.
    done = {row["image"] for row in rows}
    todo = [(path, record) for path, record in found if path not in done]
    items, skipped = caption_all(captioner, todo, settings, options, rows, made)
    if options.coco:
        outputs.write_coco(options.coco, rows)
    if options.html:
        outputs.write_gallery(options.html, items, captioner, settings, options.guidance)
    if skipped:
        names = ", ".join(Path(path).name for path in skipped)
        print(f"{len(skipped)} of {len(todo)} images skipped: {names}", file=sys.stderr)
        return 1 if options.strict else 0  # 0: a folder may hold bad files


if __name__ == "__main__":
    files.run(main)
