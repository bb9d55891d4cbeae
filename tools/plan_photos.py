"""What COCO and Flickr30k cost on one 16 GB GPU, before anyone downloads them: the commands, disk, time and memory of each.

Reads   nothing: a training step, an encoder's pass, decoding a photo and a save are measured on this machine
Writes  docs/recipes.md (--out)

Seconds on two cores:
    python -m tools.plan_photos
With rates of the card itself (benchmark.py prints the share of the matrix product that training reaches on it):
    python -m tools.plan_photos --peak 88e12 --peak_float32 22e12 --memory 16e9 --cores 16 --out recipes.md

A plan is arithmetic: shares of a matrix product are measured here and taken over to the card's data sheet.
"""

import io
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from base import config, files, flags, metrics
from base.config import ModelConfig
from base.files import UserError
from base.images import resize_crop
from loop import hardware
from tools import scaling
from tools.scaling import Job, duration, size

ASSUMED = {
    "peak": (65e12, "products a second of the card in float16, times two; the T4's data sheet"),
    "peak_float32": (8.1e12, "the same in float32, in which encoders run"),
    "memory": (16e9, "bytes of the card"),
    "cores": (8, "CPU cores that decode photos"),
}
EPOCHS, BATCH, CAPTIONS, LENGTH, CALLS = 30, 512, 4, 32, 12
TRIED = 0.20  # share of a GPU's matrix product that training reached, once (LOG.md)


@dataclass(frozen=True)
class Collection:
    """photos in all and to train on, as Karpathy splits them; bytes of their files; files to get, captions file, flag of the data folder."""

    name: str
    photos: int
    train: int
    bytes: float
    get: str
    captions: str
    images: str


COLLECTIONS = (
    Collection(
        "COCO",
        123_287,
        113_287,
        19e9,
        "train2014.zip (13 GB) and val2014.zip (6 GB) from cocodataset.org, unpacked into coco/",
        "dataset_coco.json",
        "coco",
    ),
    Collection(
        "Flickr30k",
        31_014,
        29_000,
        4.4e9,
        "flickr30k-images (4.4 GB; its authors' form), into flickr30k-images/",
        "dataset_flickr30k.json",
        "flickr30k-images",
    ),
)
PAGE = """# COCO and Flickr30k on one 16 GB GPU
Made by `python -m tools.plan_photos`. **Not run:** neither collection was here. Rates were measured on the machine that made this page and
carried over to a card by its data sheet; the features' size is exact, the photos' sizes are what their authors say.

The Karpathy splits (`dataset_coco.json`, `dataset_flickr30k.json`) say which photos are for what; `prep_caption_photos.py` puts COCO's
restval into train, and prints and checks 113,287 / 5,000 / 5,000 and 29,000 / 1,014 / 1,000.

Measured here ({step[on]}): training reaches {step[share]:.0%} of the matrix product (`{model}`, 8 rows of 256); a ViT-B/32 with random weights
{encoder[share]:.0%} in float32 ({encoder[gflops]:.1f} GFLOP a photo); decoding and resizing a 640x480 JPEG takes {decode:.1f} ms of one core;
a checkpoint is saved at {save} a second.
On the one GPU that was tried, an H200, training `small` reached {tried:.0%} of its matrix product, 27% with `--compile` (LOG.md): where a card does
no better than the first, training takes {slower:.1f} times what stands below.
Assumed, none of it measured:
{assumed}

{sections}"""


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("--out", default="docs/recipes.md", help="the page (default %(default)s)")
    scaling.add_flags(parser, ASSUMED)
    return parser.parse_args(argv)


def measure_encoder(seed: int, batch: int = 8) -> dict:
    """A ViT-B/32 of CLIP's architecture with random weights: operations a photo, its share of the product here, bytes of its weights,
    patches and width of its features."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(seed)
    settings = CLIPVisionConfig()  # the defaults are openai/clip-vit-base-patch32's
    device = hardware.choose_device("auto")
    model = CLIPVisionModel(settings).to(device).eval()
    pixels, seconds = torch.zeros(batch, 3, 224, 224, device=device), []
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = model(pixel_values=pixels).last_hidden_state
    with torch.no_grad():
        for _ in range(3):
            clock = time.perf_counter()
            model(pixel_values=pixels).last_hidden_state[0, 0, 0].item()
            seconds.append(time.perf_counter() - clock)
    work = counter.get_total_flops() / batch
    return {
        "gflops": work / 1e9,
        "share": work * batch / statistics.median(seconds) / hardware.product_rate(device),
        "bytes": 4 * sum(weight.numel() for weight in model.parameters()),
        "patches": features.shape[1],
        "width": features.shape[2],
    }


def measure_decode(seed: int) -> float:
    """Seconds of one core to decode a JPEG of 640x480 and bring it to 224 pixels; the median of ten."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.BICUBIC
    )
    coarse.save(file := io.BytesIO(), "JPEG", quality=90)
    seconds = []
    for _ in range(10):
        clock = time.perf_counter()
        resize_crop(
            Image.open(io.BytesIO(file.getvalue())).convert("RGB"),
            224,
            "crop",
            int(Image.Resampling.BICUBIC),
        )
        seconds.append(time.perf_counter() - clock)
    return statistics.median(seconds)


def section(
    one: Collection, args, step: dict, encoder: dict, decode: float, save_rate: float
) -> str:
    """The commands of one collection, and a row of disk, time and memory for each."""
    model = ModelConfig(
        **config.named_size("caption"),
        condition_width=encoder["width"],
        max_length=64,
        length_hidden=config.LENGTH_HIDDEN,
    )
    steps = EPOCHS * one.train * CAPTIONS // BATCH
    job = Job(one.name, model, BATCH, LENGTH, steps, "")
    plan = scaling.plan(
        job,
        1,
        step["share"] * args.peak,
        {"memory": args.memory, "link": 1e9, "network": 1e9},
        scaling.kept_bytes(job, args.seed),
        save_rate,
    )
    if "seconds" not in plan:
        raise UserError(
            f"--memory {args.memory:g}", f"enough for {one.name}'s captioner", "name a larger card"
        )
    features = one.photos * encoder["patches"] * encoder["width"] * 2
    encoding = one.photos * encoder["gflops"] * 1e9 / (encoder["share"] * args.peak_float32)
    decoding = one.photos * decode / args.cores
    held = one.photos - one.train
    writing = (
        held
        / 2
        * CALLS
        * scaling.training_flops(Job("", model, 1, LENGTH, 1, ""))
        / 3
        / (step["share"] * args.peak)
    )
    data, run = f"data_captions_{one.name.lower()}", f"runs/{one.name.lower()}"
    commands = [
        f"python prep_caption_photos.py --captions {one.captions} --images {one.images} --encoder openai/clip-vit-base-patch32 --out {data}",
        f"python train_captioning.py --data_dir {data} --out {run} --model_config caption --max_steps {steps} --batch_size {BATCH}"
        f" --accumulate {plan['accumulate']} --captions_per_image {CAPTIONS} --dropout 0.1",
        f"python evaluate.py --checkpoint {run}/best.pt --data_dir {data} --splits val,test --step_counts 1,2,4,8,16",
    ]
    rows = [
        ["step", "disk", "time", "memory of the card", "what limits it"],
        ["photos", size(one.bytes), "the network's", "–", "–"],
        [
            "features",
            size(features),
            duration(max(encoding, decoding)),
            f"{size(encoder['bytes'])} of weights, a batch of {features.CHUNK}",
            "the encoder" if encoding > decoding else "decoding",
        ],
        [
            "training",
            f"{size(plan['last'])} twice, {size(plan['resume'])}",
            duration(3600 * plan["hours"]),
            f"{size(plan['resident'])} weights and their state, {size(plan['activations'])} activations",
            plan["why"],
        ],
        [
            f"captions, {held // 2:,} photos a split",
            "–",
            duration(writing),
            "less",
            f"{CALLS} calls a caption",
        ],
    ]
    return f"""## {one.name}
Get {one.get}.
```bash
{chr(10).join(commands)}
```
{one.train:,} photos to train on, {CAPTIONS} of their five captions at a time, {EPOCHS} times over: {steps:,} steps of {BATCH} captions, a choice.

{metrics.markdown(rows)}
"""


def main(argv=None):
    args = parse_args(argv)
    if any(getattr(args, name) <= 0 for name in ASSUMED):
        raise UserError(
            "a rate or size of zero or less",
            "positive numbers",
            "correct --peak, --peak_float32, --memory or --cores",
        )
    config.named_size(args.model_config)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    out = Path(args.out)
    files.writable_folder(out.parent)
    step, encoder = scaling.measure_step(args.model_config, args.seed), measure_encoder(args.seed)
    decode, save_rate = measure_decode(args.seed), scaling.measure_save()
    sections = [section(one, args, step, encoder, decode, save_rate) for one in COLLECTIONS]
    assumed = "\n".join(
        f"- `--{name} {getattr(args, name):g}`: {words}" for name, (_, words) in ASSUMED.items()
    )
    files.write_text(
        out,
        PAGE.format(
            step=step,
            tried=TRIED,
            slower=step["share"] / TRIED,
            encoder=encoder,
            decode=1000 * decode,
            save=size(save_rate),
            model=args.model_config,
            assumed=assumed,
            sections="\n".join(sections),
        ),
    )
    print("\n".join(sections))
    print(f"done: {out}")


if __name__ == "__main__":
    files.run(main)
