"""What COCO and Flickr30k cost on one 16 GB GPU, before anyone downloads them.

Reads   nothing: a training step, an encoder's pass, decoding an image and a save are measured here
Writes  docs/recipes.md (--out): the commands, and the disk, time and memory of each

Seconds on two cores:
    python -m tools.plan_photos
With rates of the card itself (tools.benchmark prints the share of the matrix product):
    python -m tools.plan_photos --peak 88e12 --peak_float32 22e12 --memory 16e9 --cores 16 \
--out recipes.md

A plan is arithmetic: shares of a matrix product are measured here and applied to the card's data
sheet.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from base import config, files, flags, metrics
from base.config import ModelConfig
from base.files import UserError
from base.flags import check, setting
from caption.features import CHUNK
from tools import measuring, scaling
from tools.measuring import duration, size
from tools.scaling import Hardware, Job, Measure, Measured, Plan

# Choices, but for CALLS: the default sampler took 11.2 calls per caption of Flickr8k
# (docs/log/photographs.md).
EPOCHS, BATCH, CAPTIONS, LENGTH, CALLS = 30, 512, 4, 32, 12
TRIED = 0.20  # share of a GPU's matrix product that training reached, once (docs/log/scaling.md)


@dataclass
class Card:
    """The card and the machine around it. None of it is measured."""

    peak: float = setting(
        65e12,
        "products per second of the card in float16, times two; the T4's data sheet",
        above=0,
    )
    peak_float32: float = setting(8.1e12, "the same in float32, in which encoders run", above=0)
    memory: float = setting(16e9, "bytes of the card", above=0)
    cores: float = setting(8, "CPU cores that decode images", above=0)

    def __post_init__(self):
        check(self)


@dataclass
class Page:
    """Where the page goes."""

    out: str = setting("docs/recipes.md", "the page", metavar="FILE")

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class Collection:
    """A collection of photographs, as Karpathy splits it.

    photos: in all; train: to train on; bytes: of their files. get: what to download. captions: the
    captions file. images: the value of --images.
    """

    name: str
    photos: int
    train: int
    bytes: float
    get: str
    captions: str
    images: str


# COCO: 5,000 val and 5,000 test photographs; restval counts as train.
COLLECTIONS = (
    Collection(
        "COCO",
        photos=123_287,
        train=113_287,
        bytes=19e9,
        get="train2014.zip (13 GB) and val2014.zip (6 GB) from cocodataset.org, into coco/",
        captions="dataset_coco.json",
        images="coco",
    ),
    Collection(
        "Flickr30k",
        photos=31_014,
        train=29_000,
        bytes=4.4e9,
        get="flickr30k-images (4.4 GB; its authors' form), into flickr30k-images/",
        captions="dataset_flickr30k.json",
        images="flickr30k-images",
    ),
)
PAGE = """# COCO and Flickr30k on one 16 GB GPU
`python -m tools.plan_photos` made this page. **Not run:** neither collection was at hand. Rates
were measured on the machine that made this page, and applied to a card by its data sheet. The size
of the features is exact. The authors of the collections say how large the photographs are.

The Karpathy splits (`dataset_coco.json`, `dataset_flickr30k.json`) say what each photograph is for.
`prep_caption_photos.py` puts COCO's restval into train. It prints and checks the sizes of the
splits:

| | train | val | test |
|---|---|---|---|
| COCO | 113,287 | 5,000 | 5,000 |
| Flickr30k | 29,000 | 1,014 | 1,000 |

| measured here, {step[on]} | |
|---|---|
| training's share of the matrix product (`{model}`) | {step[share]:.0%} |
| the share of a ViT-B/32 with random weights, in float32 | {encoder[share]:.0%} |
| operations of this encoder | {encoder[gflops]:.1f} GFLOP per image |
| decoding and resizing a JPEG of 640x480 on one core | {decode:.1f} ms |
| bytes per second of saving a checkpoint | {save} |

On the only GPU that was tried, an H200, training `small` reached {tried:.0%} of its matrix product,
and 27% with `--compile` ([log](log/scaling.md)). A card that reaches {tried:.0%} trains
{slower:.1f} times as long as the tables say.

Assumed, none of it measured:
{assumed}

{sections}"""


def parse_args(argv):
    parser = flags.Parser(__doc__)
    for kind in (Page, Card, Measure):
        parser.add_settings(kind)
    return parser.parse_args(argv)


def job_of(collection: Collection, width: int) -> Job:
    """Training a captioner on features of this width."""
    model = ModelConfig(
        **config.named_size("caption"),
        condition_width=width,
        max_length=64,
        length_hidden=config.LENGTH_HIDDEN,
    )
    # A batch counts captions: an epoch shows each photograph CAPTIONS times.
    steps = EPOCHS * collection.train * CAPTIONS // BATCH
    return Job(collection.name, model, BATCH, LENGTH, steps, "")


def plan_of(job: Job, card: Card, share: float, seed: int, save_rate: float) -> Plan:
    """The plan of this job on the card. Raises UserError if the card is too small."""
    # On one GPU nothing is sent, so the rates of the links do not count.
    hardware = Hardware(peak=card.peak, memory=card.memory)
    # An assumption: the card reaches the share that this machine reaches. The page names the share
    # of the only GPU that was tried.
    measured = Measured(share * card.peak, *measuring.kept_bytes(job, seed), save_rate)
    plan = Plan(job, 1, hardware, measured)
    if plan.problem:
        raise UserError(
            f"--memory {card.memory:g}", f"enough for {job.name}'s captioner", "name a larger card"
        )
    return plan


def writing_seconds(job: Job, captions: int, rate: float) -> float:
    """Seconds to write captions. A call costs a third of a training step: no backward pass."""
    # 6·N operations train a token, and 2·N of them are the forward pass (arXiv 2001.08361).
    return captions * CALLS * scaling.training_flops(job) / 3 / rate


def commands(collection: Collection, plan: Plan) -> list[str]:
    """The three commands of a collection."""
    name = collection.name.lower()
    data, run = f"data_captions_{name}", f"runs/{name}"
    return [
        f"python prep_caption_photos.py --captions {collection.captions} "
        f"--images {collection.images} --encoder openai/clip-vit-base-patch32 --out {data}",
        f"python train_captioning.py --data_dir {data} --out {run} --model_config caption "
        f"--max_steps {plan.job.steps} --batch_size {BATCH} --accumulate {plan.accumulate} "
        f"--captions_per_image {CAPTIONS} --dropout 0.1",
        f"python evaluate.py --checkpoint {run}/best.pt --data_dir {data} --splits val,test "
        "--step_counts 1,2,4,8,16",
    ]


def costs(collection: Collection, plan: Plan, card: Card, encoder: dict, decode: float) -> list:
    """A row of disk, time and memory for each step."""
    # float16 features of every patch.
    features = 2 * collection.photos * encoder["patches"] * encoder["width"]
    operations = collection.photos * encoder["gflops"] * 1e9
    # Encoders run in float32, for which a card has another peak.
    encoding = operations / (encoder["share"] * card.peak_float32)
    decoding = collection.photos * decode / card.cores
    # Flickr30k has 14 more photographs in val than in test; the mean is near enough.
    held_out = (collection.photos - collection.train) / 2  # per split
    writing = writing_seconds(plan.job, held_out, plan.measured.rate)
    return [
        ["step", "disk", "time", "memory of the card", "what limits it"],
        ["photos", size(collection.bytes), "the network's", "–", "–"],
        [
            "features",
            size(features),
            duration(max(encoding, decoding)),
            f"{size(encoder['bytes'])} of weights, a batch of {CHUNK}",
            "the encoder" if encoding > decoding else "decoding",
        ],
        [
            "training",
            f"{size(plan.last)} twice, {size(plan.resume)}",  # best.pt and last.pt
            duration(3600 * plan.hours),
            f"{size(plan.resident)} weights and their state, {size(plan.activations)} activations",
            plan.bottleneck[0],
        ],
        [
            f"captions, {int(held_out):,} photos per split",
            "–",
            duration(writing),
            "less",
            f"{CALLS} calls per caption",
        ],
    ]


def section(
    collection: Collection,
    card: Card,
    step: dict,
    encoder: dict,
    decode: float,
    save_rate: float,
    seed: int = 0,
) -> str:
    """The commands of a collection, and a row of disk, time and memory for each.

    step, encoder: from `measuring`. decode: seconds per image of one core. save_rate: bytes per
    second.
    """
    job = job_of(collection, encoder["width"])
    plan = plan_of(job, card, step["share"], seed, save_rate)
    lines = "\n".join(commands(collection, plan))
    table = metrics.markdown(costs(collection, plan, card, encoder, decode))
    return f"""## {collection.name}
Get {collection.get}.
```bash
{lines}
```
There are {collection.train:,} photos to train on. Each epoch uses {CAPTIONS} of the five captions
of each. {EPOCHS} epochs are {job.steps:,} steps of {BATCH} captions. The number of epochs is a
choice.

{table}
"""


def main(argv=None):
    arguments = parse_args(argv)
    page, card, measure = (flags.resolve(kind, arguments) for kind in (Page, Card, Measure))
    torch.set_num_threads(measure.threads or torch.get_num_threads())
    out = Path(page.out)
    # Refused here, not after the measurements.
    files.writable_folder(out.parent)
    step = measuring.measure_step(measure.model_config, measure.seed)
    encoder = measuring.measure_encoder(measure.seed)
    decode, save_rate = measuring.measure_decode(measure.seed), measuring.measure_save()
    sections = []
    for collection in COLLECTIONS:
        # Both collections use the same measurements; only their counts differ.
        figures = (card, step, encoder, decode, save_rate, measure.seed)
        sections.append(section(collection, *figures))
    text = PAGE.format(
        step=step,
        tried=TRIED,
        slower=step["share"] / TRIED,
        encoder=encoder,
        decode=1000 * decode,
        save=size(save_rate),
        model=measure.model_config,
        assumed=scaling.assumptions(card),
        sections="\n".join(sections),
    )
    files.write_text(out, text)
    print("\n".join(sections))
    print(f"done: {out}")


if __name__ == "__main__":
    files.run(main)
