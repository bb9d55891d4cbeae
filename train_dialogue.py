"""Train a model that answers questions about images, or its autoregressive twin.

Reads   data_dialogues/ (--data_dir): a folder from prep_dialogue.py
Writes  checkpoints_dialogue/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt, samples/

A short run on a laptop:
    python train_dialogue.py --max_steps 100 --batch_size 16
For real:
    python train_dialogue.py --max_steps 1000 --batch_size 32
The twin, on the same dialogues in the same order:
    python train_dialogue.py --objective ar --out checkpoints_dialogue_ar
From a captioner that was trained on the same folder:
    python train_dialogue.py --init_from checkpoints_caption_poc/best.pt --out runs/from_captions

A step reads each dialogue in two copies and trains all of its answers (net/turns.py). best.pt is
chosen on the val split, never on a test split.
"""

from dataclasses import dataclass, replace

import torch

from base import config, files, flags
from base.config import ModelConfig, TrainConfig
from base.flags import setting
from caption.data import image_path
from caption.dialogue import DialogueBatches, DialogueData
from caption.dialogue_objective import (
    DialogueRun,
    make_eval,
    make_loss,
    make_preview,
    statistics_of,
)
from loop import checkpoint, distributed, fit, hardware, recipe, starts
from net import adapters

PAD_COMPILED = 16  # --compile: row lengths are multiples of it, so that few shapes are compiled
# The data, the objective and the image encoder decide these; the rest is for other networks.
SKIP = ("vocab_size", "output_size", "causal", "condition_width", "length_hidden", "block_sizes")
SKIP += ("time_conditioning", "noise", "soft_masks", "quality_layers", "retrieve", "logit_shift")
# Experts choose from whole rows, and a turn must not know the turns behind it.
SKIP += ("experts", "expert_capacity", "expert_hidden")


@dataclass
class DialogueStart:
    """Data and start."""

    data_dir: str = setting("data_dialogues", "folder from prep_dialogue.py", metavar="FOLDER")
    model_config: str = setting("tiny", "named size", choices=config.NAMED_SIZES)
    init_from: str | None = setting(
        None,
        "start from the weights of this text, caption or dialogue checkpoint of the same tokenizer",
        metavar="FILE",
    )

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="checkpoints_dialogue")
    parser.add_settings(DialogueStart)
    parser.add_settings(DialogueRun)
    parser.add_settings(ModelConfig, skip=SKIP)
    parser.add_settings(TrainConfig, max_steps=1000, batch_size=32, eval_every=100, save_every=100)
    return parser.parse_args(argv)


def read_data(setup: recipe.Setup, start: DialogueStart, own: DialogueRun):
    """The architecture and both splits.

    Raises UserError if a resumed run had other data or another model.
    """
    train = DialogueData(start.data_dir, "train")
    size = {"max_length": train.max_length, **config.named_size(start.model_config)}
    model_config = replace(
        setup.model_config(size),
        vocab_size=train.tokenizer.vocab_size,
        output_size=train.tokenizer.output_size,
        causal=own.objective == "ar",  # the twin is the same class, run causally
        condition_width=train.encoder["width"],
    )
    if setup.resume:
        current = [train.meta["fingerprint"], train.encoder["key"]]
        run = [setup.resume["data"]["fingerprint"], setup.resume["encoder"]["key"]]
        recipe.refuse_other_data(start.data_dir, "dialogues or features", current, run)
        recipe.refuse_other_model(setup.resume, model_config, own.objective)
    held_out = DialogueData(start.data_dir, "val", train.slot)
    for split in (train, held_out):
        split.fit(model_config.max_length)
    return model_config, train, held_out


def start_model(setup: recipe.Setup, start: DialogueStart, model_config, data, device):
    """The model before its first step, and the checkpoint that it started from, or None."""
    described = {"model": flags.to_dict(model_config)}
    model, before = checkpoint.build_dialogue(described).to(device), setup.resume
    if start.init_from and not setup.resume:
        before = starts.start_from(model, start.init_from, data.tokenizer.fingerprint)
    elif not setup.resume:
        for block in model.blocks:  # nothing is learnt yet that a closed gate would protect
            torch.nn.init.ones_(block.cross.gate)
    return model, before


def main(argv=None):
    args = parse_args(argv)
    setup = recipe.read_run(args, kinds=("dialogue",))
    start, own, cfg = setup.own(DialogueStart), setup.own(DialogueRun), setup.train_config()
    model_config, train, held_out = read_data(setup, start, own)
    adapters.check_start(model_config, start.init_from, resumed=setup.resume is not None)
    device = recipe.begin(setup, cfg, own, model_config, cfg)

    model, before = start_model(setup, start, model_config, train, device)
    statistics = statistics_of(train, before)
    encoder = {name: train.encoder[name] for name in ("encoder", "key", "patches", "width")}
    about = recipe.about("dialogue", own.objective, model_config, train, statistics, own)
    pad_multiple = PAD_COMPILED if cfg.compile else 1
    batches = DialogueBatches(
        train, cfg.batch_size, cfg.accumulate, cfg.seed, pad_multiple, own.question_share
    )
    distributed.say(
        f"data: {len(train):,} dialogues of {train.num_turns} turns, slots of {train.slot} tokens, "
        f"{batches.epoch_steps:,} steps per epoch"
    )
    # Rows of 100 to 200 tokens: plain products took 0.8 times as long as the fused attention. With
    # notes, rows have 290 tokens: the fused attention took 0.87 to 0.99 times as long, median 0.97.
    with hardware.short_attention(device):
        metrics = fit.fit(
            model,
            make_loss(own, train.tokenizer, statistics),
            batches,
            cfg,
            setup.out,
            # A reader must compute features with the same encoder, so the checkpoint names it.
            about=about | {"encoder": encoder},
            eval_fn=make_eval(own, held_out, statistics),
            preview_fn=make_preview(own, cfg.seed, held_out, statistics),
            resume=setup.resume,
        )
    picture = image_path(start.data_dir, held_out.records[0])
    recipe.end(setup.out, metrics, "chat.py", ["--image", str(picture)])


if __name__ == "__main__":
    files.run(main)
