"""Caption pictures with a trained captioner: your own, a whole folder, or the ones that it was held out from.

Reads   a checkpoint of train_captioning.py (default: the newest below this folder), and pictures
Writes  captions to the screen; --json lines; --coco a COCO results file; --html a gallery that plays the unmasking

Seconds on a laptop:
    python generate_caption.py --use_val_set --num_samples 5
    python generate_caption.py --image picture.png --num_samples 3
    python generate_caption.py --image picture.png --template "a [MASK] red [MASK]"
A folder, batched; a second run with the same --json goes on where the first stopped:
    python generate_caption.py --image_dir photos --json captions.jsonl --html gallery.html

Beside each caption stands its bound in nats per token given the picture: the lower, the surer.
"""

import json
import re
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from base import config, files, flags, images
from base.config import SampleConfig
from base.files import UserError
from base.templates import template_row
from caption import data, features, writer
from loop import checkpoint, hardware
from show import pages
from worlds import language
from worlds.scenes import scene_from_dict


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("--checkpoint", help="default: the newest captioner below this folder")
    parser.add_argument("--image", help="one picture")
    parser.add_argument("--image_dir", help="all pictures in a folder and below it")
    parser.add_argument(
        "--use_val_set",
        action="store_true",
        help="pictures of --split in --data_dir, with their references",
    )
    parser.add_argument(
        "--data_dir",
        default="data_captions_synthetic",
        help="for --use_val_set (default %(default)s)",
    )
    parser.add_argument("--split", default="val", help="for --use_val_set (default %(default)s)")
    parser.add_argument(
        "--num_samples",
        type=int,
        default=0,
        help="captions of --image (default 1), or pictures to caption (default all)",
    )
    parser.add_argument(
        "--template",
        help='a caption with blanks, as in "a [MASK] red [MASK]"; [MASK*3] is three tokens',
    )
    parser.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        help="away from the blind model: 1 is none (default 1)",
    )
    parser.add_argument(
        "--rerank",
        type=int,
        default=1,
        help="write so many lengths a picture and keep one (default 1)",
    )
    parser.add_argument(
        "--choose",
        default="bound",
        choices=config.CHOOSE,
        help="keep the likeliest, or the one most like the rest (default bound)",
    )
    parser.add_argument(
        "--penalty",
        type=float,
        default=0.5,
        help="of the blind model's bound in reranking (default 0.5)",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=32,
        help="pictures at once; does not change captions (default 32)",
    )
    parser.add_argument("--html", help="write a gallery that plays the unmasking")
    parser.add_argument("--json", help="write one JSON object a line, as pictures are done")
    parser.add_argument("--coco", help="write a COCO results file: [{image_id, caption}]")
    parser.add_argument(
        "--strict", action="store_true", help="end with status 1 if a picture had to be skipped"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_settings(SampleConfig, **config.CAPTIONS)
    return parser.parse_args(argv)


def sources(args) -> list[tuple[str, dict]]:
    """(path, record) of each picture; the record is empty unless the picture belongs to a split."""
    if sum(map(bool, (args.image, args.image_dir, args.use_val_set))) != 1:
        raise UserError(
            "no picture, or several kinds",
            "one of --image, --image_dir, --use_val_set",
            "choose one",
        )
    if args.image:
        return [(args.image, {})] * max(1, args.num_samples)
    if args.image_dir:
        found = [(str(path), {}) for path in images.list_images(args.image_dir)]
    else:
        meta = data.read_meta(args.data_dir)
        if args.split not in meta["splits"]:
            raise UserError(
                f"no split {args.split!r} in {args.data_dir}",
                "one of " + ", ".join(meta["splits"]),
                "choose one of these",
            )
        records = [
            record for record in data.read_records(args.data_dir) if record["split"] == args.split
        ]
        found = [(str(data.image_path(args.data_dir, record)), record) for record in records]
    return found[: args.num_samples or None]


def open_batch(encoder, part: list[tuple[str, dict]], skipped: list[str]):
    """The pictures of a batch that can be read, and their features; the others are named and noted."""
    kept, pixels = [], []
    for path, record in part:
        try:
            picture = images.open_image(path)
        except (UserError, OSError) as error:
            message = str(error if isinstance(error, UserError) else files.os_error(error, path))
            tqdm.write(f"skipped: {message}", file=sys.stderr)
            skipped.append(path)
            continue
        kept.append((path, record, picture))
        pixels.append(picture)
    return kept, encoder.features(pixels) if pixels else None


def caption_batch(
    args, model, tokenizer, saved, features, settings, first: int
) -> list[writer.Caption]:
    """Write and score the captions of a batch."""
    seen = writer.standardise(features, saved["statistics"], model.device)
    template = (
        template_row(args.template, tokenizer, model.config.max_length) if args.template else None
    )
    if args.rerank > 1 and template is None and saved["objective"] == "diffusion":
        return writer.best_of(
            model,
            tokenizer,
            seen,
            settings,
            args.rerank,
            choose=args.choose,
            guidance=args.guidance,
            penalty=args.penalty,
            seed=args.seed,
            first=first,
        )
    written = writer.write(
        model,
        tokenizer,
        saved["objective"],
        seen,
        settings,
        guidance=args.guidance,
        template=template,
        seed=args.seed,
        first=first,
    )
    nats = writer.bounds(model, tokenizer, saved["objective"], seen, [one.ids for one in written])
    for one, value in zip(written, nats, strict=True):
        one.bound = float(value) / (len(one.ids) - 1)
    return written


def item(number: int, path: str, record: dict, picture, one: writer.Caption, tokenizer) -> dict:
    """What the gallery shows of a picture."""
    keep = [
        i for i, id in enumerate(one.ids) if id not in (tokenizer.bos, tokenizer.eos, tokenizer.pad)
    ]
    judged = (
        language.judge(one.text, scene_from_dict(record["scene"])) if record.get("scene") else None
    )
    notes = [f"not so: {words}" for words in judged["false"]] if judged else []
    return {
        "image": images.data_uri(picture),
        "name": f"{record.get('split', '')} {Path(path).name}".strip(),
        "caption": one.text,
        "pieces": [tokenizer.piece(one.ids[i]) for i in keep],
        "step": [one.step[i] for i in keep],
        "probability": [one.probability[i] for i in keep],
        "score": -one.bound,
        "references": record.get("captions", []),
        "verdict": judged
        and {"truthful": judged["truthful"], "exact": judged["exact"], "notes": notes},
    }


def already_done(path: str | None) -> list[dict]:
    """The lines of an earlier, stopped run with the same --json."""
    if not path or not Path(path).exists():
        return []
    lines = []
    for line in Path(path).read_text(encoding="utf-8").split("\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:  # the line that a kill cut short
            break
    return lines


def main(argv=None):
    args = parse_args(argv)
    for flag, least in (("num_samples", 0), ("batch_size", 1), ("rerank", 1)):
        if getattr(args, flag) < least:
            raise UserError(
                f"--{flag} {getattr(args, flag)}", f"at least {least}", "choose such a number"
            )
    default_temperature = (
        {"temperature": 0.8} if args.image and args.num_samples > 1 else {}
    )  # several captions of one picture should differ
    settings = flags.resolve(SampleConfig, args, config.CAPTIONS, default_temperature)
    found = sources(args)
    if args.image:
        images.open_image(args.image)  # the one picture must be good: an error, not a skip
    for path in filter(None, (args.html, args.json, args.coco)):
        files.writable_folder(Path(path).parent)
    if args.threads:
        torch.set_num_threads(args.threads)
    path = Path(args.checkpoint) if args.checkpoint else checkpoint.newest(("caption",))
    model, tokenizer, saved = checkpoint.open_model(
        path, hardware.choose_device(args.device), kinds=("caption",)
    )
    print(f"{path}: {checkpoint.describe(saved)}", file=sys.stderr)
    if saved["objective"] == "ar" and (args.template or args.guidance != 1 or args.rerank > 1):
        raise UserError(
            "--template, --guidance or --rerank for a twin",
            "none of them",
            "drop them: they are the diffusion model's",
        )
    encoder = features.open_encoder(saved, path, model.device)
    before = already_done(args.json) if args.image_dir else []
    rows, items, skipped = list(before), [], []
    names = {row["image"] for row in before}
    todo = [one for one in found if one[0] not in names]
    for first in tqdm(
        range(0, len(todo), args.batch_size), unit="batch", disable=len(todo) <= args.batch_size
    ):
        kept, seen = open_batch(encoder, todo[first : first + args.batch_size], skipped)
        if seen is None:
            continue
        written = caption_batch(args, model, tokenizer, saved, seen, settings, len(rows))
        for (name, record, picture), one in zip(kept, written, strict=True):
            rows.append(
                {
                    "image": name,
                    "caption": one.text,
                    "bound": round(one.bound, 4),
                    "calls": one.calls,
                    "references": record.get("captions", []),
                }
            )
            if args.html:
                items.append(item(len(items), name, record, picture, one, tokenizer))
            print(f"{name}: {one.text}   ({one.bound:.2f} nats/token)")
        if args.json:
            files.write_text(
                args.json, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            )
    if args.coco:
        number = lambda name: int(
            (re.findall(r"\d+", Path(name).stem) or [0])[-1]
        )  # COCO_val2014_000000000042 is 42
        with files.replacing(args.coco, "w") as file:
            json.dump(
                [{"image_id": number(row["image"]), "caption": row["caption"]} for row in rows],
                file,
            )
    if args.html:
        facts = {
            "checkpoint": path.name,
            "trained for": f"{saved['step']} steps",
            "encoder": encoder.name,
            "sampler": settings.sampler,
            "steps": settings.steps,
            "temperature": settings.temperature,
            "guidance": args.guidance,
        }
        files.write_text(args.html, pages.gallery(items, facts))
        print(f"wrote {args.html}", file=sys.stderr)
    if skipped:
        print(
            f"{len(skipped)} of {len(todo)} pictures skipped: "
            + ", ".join(Path(name).name for name in skipped),
            file=sys.stderr,
        )
        return 1 if args.strict else 0


if __name__ == "__main__":
    files.run(main)
