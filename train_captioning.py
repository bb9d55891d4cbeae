"""Train a masked-diffusion captioner, or its autoregressive twin, on frozen image features.

Reads   data_captions_synthetic/ (--data_dir): a folder from a prep_caption script
Writes  checkpoints_caption_poc/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt,
        samples/

Five minutes on a laptop:
    python train_captioning.py --model_config tiny --max_steps 1200 --batch_size 64
For real, the 6-layer, 768-wide decoder:
    python train_captioning.py --model_config caption --max_steps 5000 --batch_size 64
For long runs (thousands of steps), rows that are mostly masked:
    python train_captioning.py --max_steps 3500 --batch_size 128 --accumulate 4 \\
        --learning_rate 4e-3 --weight flat --estimator cosine
The twin, on the same captions in the same order:
    python train_captioning.py --objective ar --out checkpoints_caption_ar
Soft masks, which carry beliefs from one call to the next (net/soft_masks.py):
    python train_captioning.py --soft_masks --out runs/soft
Retrieval, which reads captions of similar training images too (caption/store.py):
    python train_captioning.py --retrieve 3 --out runs/retrieval
A second phase, for few calls, on the captions that a captioner writes for the same images:
    python train_captioning.py --teacher runs/long/best.pt --init_from runs/long/best.pt \\
        --max_steps 700 --out runs/few
A second phase of minutes, for the length head alone:
    python train_captioning.py --length_only --init_from runs/long/best.pt --optimizer adamw \\
        --length_dropout 0.1 --batch_size 512 --out runs/len
A second phase of minutes, for a head that says which tokens are doubtful (net/quality.py):
    python train_captioning.py --quality_layers 1 --init_from runs/long/best.pt --out runs/quality
Adapters in place of all weights (net/adapters.py); new words need --lora_embedding:
    python train_captioning.py --lora_rank 16 --init_from runs/long/best.pt --out runs/lora
A second phase on the score by which photographs are judged:
    python train_captioning.py --init_from checkpoints_caption_poc/best.pt --self_critical 1 \\
        --learning_rate 3e-4 --out checkpoints_caption_sc

best.pt is chosen on the val split, never on a test split.
"""

from dataclasses import dataclass, replace

import torch

from base import config, files, flags
from base.config import ModelConfig, TrainConfig
from base.flags import setting
from caption import lengths, store, teach
from caption.data import CaptionBatches, CaptionData
from caption.objective import (
    CaptionRun,
    check_sizes,
    make_eval,
    make_loss,
    make_preview,
    statistics_of,
)
from loop import distributed, fit, hardware, recipe, starts
from loop.batches import MicroBatches, with_noise, with_soft_steps
from net import adapters, quality, soft_masks

ROOM = 4  # tokens that a written caption may be longer than the longest training caption
PAD_COMPILED = 16  # --compile: row lengths are multiples of it, so that few shapes are compiled


@dataclass
class CaptionStart:
    """Data and start."""

    data_dir: str = setting(
        "data_captions_synthetic", "folder from a prep_caption script", metavar="FOLDER"
    )
    model_config: str = setting("tiny", "named size", choices=config.NAMED_SIZES)
    init_from: str | None = setting(
        None,
        "start from this text or caption checkpoint's weights; new parts start as the identity",
        metavar="FILE",
    )

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="checkpoints_caption_poc")
    parser.add_settings(CaptionStart)
    parser.add_settings(CaptionRun)
    # The tokenizer, the objective and the image encoder decide what is skipped.
    parser.add_settings(ModelConfig, skip=config.NOT_OF_CAPTIONERS)
    parser.add_settings(TrainConfig, eval_every=500, save_every=500)
    return parser.parse_args(argv)


def read_data(setup: recipe.Setup, start: CaptionStart, own: CaptionRun):
    """The architecture, both splits, and whether the captioner reads how frames differ.
    Raises UserError if a resumed run had other data or another model.
    """
    train = CaptionData(start.data_dir, "train")  # first: its captions decide the length of a row
    asked = setup.model_config({})
    frozen = own.length_only or asked.quality_layers or asked.lora_rank
    changes, patches = own.of_clips(train, setup.resume, start.init_from if frozen else None)
    size = {
        "patch_layers": patches,
        "max_length": train.longest + ROOM,
        # Version 0.1.0 did not store the width of a length head, which was linear.
        "length_hidden": 0 if setup.resume else config.LENGTH_HIDDEN,
    }
    model_config = replace(
        setup.model_config(size | config.named_size(start.model_config)),
        vocab_size=train.tokenizer.vocab_size,
        output_size=train.tokenizer.output_size,
        causal=own.objective == "ar",  # the twin is the same class, run causally
        condition_width=train.encoder["width"] * (2 if changes else 1),
    )
    if model_config.max_length >= train.longest and not setup.resume:
        lengths.note_long(train)
    lengths.cut(train, model_config.max_length)
    if setup.resume:
        # The encoder's key too: features of equal shape may come from another encoder.
        current = [train.meta["fingerprint"], train.encoder["key"]]
        run = [setup.resume["data"]["fingerprint"], setup.resume["encoder"]["key"]]
        recipe.refuse_other_data(start.data_dir, "captions or features", current, run)
        recipe.refuse_other_model(setup.resume, model_config, own.objective)
    val = lengths.open_cut(start.data_dir, "val", model_config.max_length)
    return model_config, train, val, changes


def start_model(setup, start: CaptionStart, own: CaptionRun, model_config, data, device):
    """The model before its first step, and the checkpoint that it started from, or None."""
    model, before = soft_masks.build(model_config).to(device), setup.resume
    if start.init_from and not setup.resume:
        fingerprint, width = data.tokenizer.fingerprint, data.encoder["width"]
        before = starts.start_from(model, start.init_from, fingerprint, width)
        if own.length_only or model_config.quality_layers:
            check_sizes(start.init_from, before, model_config)
    elif not setup.resume:
        for block in model.blocks:  # nothing is learnt yet that a closed gate would protect
            torch.nn.init.ones_(block.cross.gate)
    if own.length_only:  # frozen weights get no gradient, and no decay either
        model.requires_grad_(False)
        if not setup.resume:
            # A fresh head ends at 2.136 nats on val, the old head trained on at 2.154 (docs/log).
            model.length_head = soft_masks.build(model_config).to(device).length_head
        model.length_head.requires_grad_(True)
    elif model_config.quality_layers:
        quality.freeze(model)
    return model, before


def make_batches(
    data: CaptionData, own: CaptionRun, cfg: TrainConfig, model_config: ModelConfig, shelf
) -> MicroBatches:
    """The batches of a step, the captions of an image together. shelf: the store, or None."""
    pad_multiple = PAD_COMPILED if cfg.compile else 1
    batches = CaptionBatches(
        data, cfg.batch_size, cfg.accumulate, cfg.seed, own.captions_per_image, pad_multiple
    )
    distributed.say(
        f"data: {len(data):,} images with {data.encoder['encoder']} features, "
        f"{batches.epoch_steps:,} steps per epoch"
    )
    if shelf is not None:
        count = model_config.retrieve
        return store.with_given(batches, shelf, data, cfg.seed, count, own.neighbours)
    return (
        with_soft_steps(batches, cfg.seed, own.soft_share) if model_config.soft_masks else batches
    )


def main(argv=None):
    args = parse_args(argv)
    setup = recipe.read_run(args, kinds=("caption",))
    start, own, cfg = setup.own(CaptionStart), setup.own(CaptionRun), setup.train_config()
    # Before any data are read, so that a wrong flag costs no time.
    own.check_start(bool(start.init_from or setup.resume))
    own.check_batch(cfg)
    model_config, train, held_out, changes = read_data(setup, start, own)
    shelf = store.for_training(model_config.retrieve, own.neighbours, train, held_out)
    adapters.check_start(model_config, start.init_from, resumed=setup.resume is not None)
    if model_config.quality_layers:
        own.check_quality(bool(start.init_from or setup.resume))
    device = recipe.begin(setup, cfg, own, model_config, cfg)

    # Before the model is made: the teacher may be larger than it, and is gone by then.
    if own.teacher:
        teach.use_teacher(
            [train, held_out],
            own.teacher,
            setup.out,
            model_config.max_length,
            device,
            cfg,
            resumed=bool(setup.resume),
        )
    model, before = start_model(setup, start, own, model_config, train, device)
    only_head = own.length_only or model_config.quality_layers > 0
    statistics = statistics_of(train, before, only_head, changes)
    encoder = {name: train.encoder[name] for name in ("encoder", "key", "patches", "width")}
    about = recipe.about("caption", own.objective, model_config, train, statistics, own)
    batches = make_batches(train, own, cfg, model_config, shelf)
    humans = [record["captions"] for record in train.records]
    reward = teach.Reward(humans) if own.self_critical else None
    # A caption has a few dozen tokens, which CPUs attend to faster without the fused attention.
    with hardware.short_attention(device):
        metrics = fit.fit(
            model,
            make_loss(own, train.tokenizer, statistics, reward),
            with_noise(batches, cfg.seed),
            cfg,
            setup.out,
            # A reader must compute features with the same encoder, so the checkpoint names it.
            about=about | {"encoder": encoder},
            eval_fn=make_eval(own, held_out, statistics),
            preview_fn=make_preview(own, cfg.seed, held_out, statistics),
            resume=setup.resume,
        )
    words = ["--use_val_set", "--data_dir", start.data_dir, "--num_samples", "5"]
    words += ["--store", start.data_dir] if model_config.retrieve else []
    recipe.end(setup.out, metrics, "generate_caption.py", words)


if __name__ == "__main__":
    files.run(main)
