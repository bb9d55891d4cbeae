"""Train one network of words and pictures, or its autoregressive twin, on picture tokens.

Reads   data_image_tokens/ (--data_dir): a folder of drawn scenes as picture tokens
Writes  checkpoints_image/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt, samples/

A trial on a laptop:
    python train_image.py --max_steps 100 --eval_every 50
The twin, which writes words first and then the picture, row by row:
    python train_image.py --objective ar --minutes 30 --out checkpoints_image_ar
For real, a run that starts from the twin's weights (docs/painting.md has its time and its scores):
    python train_image.py --init_from checkpoints_image_ar/best.pt --logit_shift --minutes 70
With pictures that a painter painted itself, and that it read as they were meant:
    python -m tools.practise --checkpoint checkpoints_plans/best.pt --data_dir data_planned
    python train_image.py --data_dir data_planned --init_from checkpoints_plans/best.pt \
        --logit_shift --block_sizes 1,12 --share_hidden 0.3 --practice data_practice
Control networks of one direction:
    python train_image.py --directions to_picture --out runs/to_picture
    python train_image.py --directions to_words --out runs/to_words

The network paints a picture of words, writes the words of a picture, or both together.
"""

from dataclasses import dataclass, replace

from base import config, files, flags
from base.config import ModelConfig, TrainConfig
from base.errors import UserError
from base.flags import setting
from image import bounds, practice, tokenisers
from image.data import PictureData
from image.objective import ImageRun, make_eval, make_loss, make_preview
from image.rows import PairBatches, Pairs
from loop import distributed, fit, hardware, recipe, starts
from loop.batches import with_block_sizes, with_noise
from net import adapters, soft_masks
from worlds import plans

PLAN_REACH = 4  # places: a large object has a radius of 2.5. It was not tuned
ROOM = 4  # words that a prompt may be longer than the longest caption of train and val


@dataclass
class ImageStart:
    """Data and start."""

    data_dir: str = setting("data_image_tokens", "folder of picture tokens", metavar="FOLDER")
    model_config: str = setting("image", "named size", choices=config.NAMED_SIZES)
    init_from: str | None = setting(
        None, "start from this checkpoint's weights of the same tokens", metavar="FILE"
    )
    practice: str | None = setting(
        None, "learn from folders of tools.practise too, with commas", metavar="FOLDERS"
    )

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="checkpoints_image")
    parser.add_settings(ImageStart)
    parser.add_settings(ImageRun)
    # The folder and the objective decide what is skipped.
    skip = ("vocab_size", "output_size", "causal", "soft_masks")
    skip += ("time_conditioning", "noise", *config.OF_CAPTIONERS, *config.OF_PAINTERS)
    skip = tuple(name for name in skip if name != "plan_reach")
    parser.add_settings(ModelConfig, skip=skip, plan_reach=PLAN_REACH)
    parser.add_settings(TrainConfig, max_steps=1600, batch_size=32, eval_every=200, save_every=200)
    return parser.parse_args(argv)


def read_data(setup: recipe.Setup, start: ImageStart, own: ImageRun):
    """The architecture, the folder and both splits.

    Raises UserError if a resumed run had other data or another model.
    """
    data = PictureData(start.data_dir)
    train, held_out = Pairs(data, "train"), Pairs(data, "val")
    # Few training captions may all be shorter than a caption of val.
    longest = max(train.longest, held_out.longest)
    size = {
        "max_length": longest + ROOM + train.pictures.shape[1],
        "vocab_size": train.vocabulary.size,
        "output_size": train.vocabulary.output_size,
        "picture_side": data.grid,
        "picture_codes": data.codes,
    }
    if setup.resume:
        size["plan_reach"] = 0  # of runs from before there was one
    asked = setup.model_config(size | config.named_size(start.model_config))
    model_config = replace(
        asked,
        causal=own.objective == "ar",  # the twin is the same class, run causally
        picture_levels=tokenisers.open_codes(data.codes_file).config.levels,
        plan_lines=train.vocabulary.plan_lines(),
        plan_reach=asked.plan_reach if train.vocabulary.plan else 0,
    )
    if setup.resume:
        current, run = data.meta["fingerprint"], setup.resume["data"]["fingerprint"]
        recipe.refuse_other_data(start.data_dir, "pictures", [current], [run])
        recipe.refuse_other_model(setup.resume, model_config, own.objective)
        bounds.check_plan_order(setup.resume, start.data_dir)
    return model_config, data, train, held_out


def read_practice(
    setup: recipe.Setup, start: ImageStart, data: PictureData
) -> tuple[Pairs | None, str]:
    """The pictures of --practice, and their fingerprint; without the flag None and "".

    Raises UserError for other practice than that of the resumed run.
    """
    found = practice.open_practice(start.practice, data) if start.practice else []
    fingerprint = ",".join(folder.fingerprint for folder in found)
    before = setup.resume["statistics"].get("practice", "") if setup.resume else fingerprint
    if before != fingerprint:
        raise UserError(
            f"--practice with pictures {fingerprint}" if found else "no --practice",
            f"the practice of the run, {before}" if before else "no practice, as in the run",
            "resume with the same practice",
        )
    practised = None
    for folder in found:
        pairs = Pairs(folder, "train")
        practised = practised.with_more(pairs) if practised else pairs
    return practised, fingerprint


def statistics_of(train: Pairs, fingerprint: str) -> dict:
    """What the checkpoint says of the data. fingerprint: of the practice; empty: there is none."""
    statistics: dict = {"row_lengths": train.histogram(), "plan": train.vocabulary.plan}
    if train.vocabulary.plan:
        statistics["plan_order"] = plans.ORDER
    return statistics | ({"practice": fingerprint} if fingerprint else {})


def main(argv=None):
    args = parse_args(argv)
    setup = recipe.read_run(args, kinds=("image",))
    start, own, cfg = setup.own(ImageStart), setup.own(ImageRun), setup.train_config()
    own.check_twin()
    own.check_blocks(setup.model_config({}).block_sizes, cfg.parallel)
    model_config, data, train, held_out = read_data(setup, start, own)
    own.check_plans(start.practice, train.vocabulary.plan)
    practised, fingerprint = read_practice(setup, start, data)
    adapters.check_start(model_config, start.init_from, resumed=setup.resume is not None)
    device = recipe.begin(setup, cfg, own, model_config, cfg)
    model = soft_masks.build(model_config).to(device)
    if start.init_from and not setup.resume:
        starts.start_from(model, start.init_from, data.tokenizer.fingerprint)
    statistics = statistics_of(train, fingerprint)
    about = recipe.about("image", own.objective, model_config, data, statistics, own)
    batches = PairBatches(
        train,
        own.shares(train.vocabulary.plan),
        cfg.batch_size,
        cfg.accumulate,
        cfg.seed,
        own.share_hidden,
        *(practised, own.share_practice),
    )
    sizes = model_config.trained_sizes
    sized = with_block_sizes(batches, cfg.seed, sizes) if sizes else batches
    distributed.say(
        f"data: {len(train):,} pictures of {data.grid} x {data.grid} tokens of {data.codes} codes, "
        f"{batches.epoch_steps:,} steps per epoch"
    )
    with hardware.short_attention(device):
        metrics = fit.fit(
            model,
            make_loss(own, train.vocabulary.mask, data.codes),
            with_noise(sized, cfg.seed),
            cfg,
            setup.out,
            about=about,
            eval_fn=make_eval(own, held_out, statistics),
            preview_fn=make_preview(own, cfg.seed, held_out, statistics),
            resume=setup.resume,
        )
    words = ["--data_dir", start.data_dir, "--prompt", "a red star above a blue circle"]
    recipe.end(setup.out, metrics, "generate_image.py", words)


if __name__ == "__main__":
    files.run(main)
