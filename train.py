"""Train a masked-diffusion language model, or its autoregressive twin, on tokens from data_prep.py.

Reads   data_full/ (--data_dir): train.npy, val.npy, their offsets, tokenizer.json, meta.json
Writes  checkpoints/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt, samples/

One minute on a laptop:
    python train.py --model_config tiny --max_steps 100 --batch_size 16 --max_length 128
For real, on one GPU or on eight:
    python train.py --model_config small --max_steps 10000
    torchrun --nproc-per-node 8 train.py --model_config small --max_steps 10000 --accumulate 8
The twin, on the same rows in the same order, and a denoiser that starts from the twin:
    python train.py --objective ar --out checkpoints_ar
    python train.py --init_from checkpoints_ar/best.pt --out checkpoints_from_ar
One network for several block sizes, from a single token to the whole row (net/blocks.py):
    python train.py --block_sizes 1,16,256 --init_from checkpoints/best.pt --out checkpoints_blocks
Few texts, read many times (tools/few_data.py compares both sides there):
    python train.py --unique_tokens 300000 --dropout 0.1 --patience 6 --out checkpoints_few
Soft masks, which carry beliefs from one call to the next (net/soft_masks.py):
    python train.py --soft_masks --out checkpoints_soft
Other noise: random tokens in place of masks, both, or noise on codes (net/noise.py):
    python train.py --noise uniform --time_conditioning sinusoidal --out checkpoints_uniform
    python train.py --noise hybrid --time_conditioning sinusoidal --out checkpoints_hybrid
    python train.py --noise gaussian --time_conditioning sinusoidal --out checkpoints_gaussian
Fused kernels on a GPU, which no GPU has tried yet (net/kernels.py):
    python train.py --model_config small --max_steps 10000 --kernels
"""

from dataclasses import dataclass, replace

from base import config, files, flags
from base.config import ModelConfig, TrainConfig
from base.files import UserError
from base.flags import setting
from loop import distributed, fit, hardware, recipe, starts
from loop.batches import with_block_sizes, with_noise, with_soft_steps
from net import adapters, kernels, soft_masks
from text.data import Batches, TextData
from text.objective import TextRun, check_blocks, check_noise, make_eval, make_loss, make_preview

PAD_COMPILED = 64  # --compile: row lengths are multiples of it, so that few shapes are compiled


@dataclass
class TextStart:
    """Data and start."""

    data_dir: str = setting("data_full", "folder from data_prep.py", metavar="FOLDER")
    model_config: str = setting("small", "named size", choices=config.NAMED_SIZES)
    init_from: str | None = setting(
        None,
        "start from this checkpoint's weights: a twin's spare diffusion its slow start",
        metavar="FILE",
    )

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder)
    parser.add_settings(TextStart)
    parser.add_settings(TextRun)
    parser.add_settings(
        ModelConfig,
        # The tokenizer and the objective decide the first three. The others are for captioners.
        skip=("vocab_size", "output_size", "causal", *config.OF_CAPTIONERS, *config.OF_PAINTERS),
    )
    parser.add_settings(TrainConfig)
    return parser.parse_args(argv)


def read_data(setup: recipe.Setup, start: TextStart, own: TextRun):
    """The architecture and both splits.

    Raises UserError if a resumed run had other data or another model.
    """
    size = {"max_length": 256} | config.named_size(start.model_config)
    model_config = setup.model_config(size)
    # The length of a row decides how the texts are cut, so it is known before they are read.
    train, held_out = (
        TextData(start.data_dir, split, model_config.max_length) for split in ("train", "val")
    )
    model_config = replace(
        model_config,
        # These follow from the data and the objective; no flag can contradict them.
        vocab_size=train.tokenizer.vocab_size,
        output_size=train.tokenizer.output_size,
        causal=own.objective == "ar",
    )
    check_blocks(own, model_config)
    check_noise(own, model_config)
    adapters.check_start(model_config, start.init_from, resumed=setup.resume is not None)
    if setup.resume:
        fingerprint, saved = train.meta["fingerprint"], setup.resume["data"]["fingerprint"]
        # Before the processes meet, each of them refuses by itself (loop/recipe.py).
        recipe.refuse_other_data(start.data_dir, "texts", [fingerprint], [saved])
        recipe.refuse_other_model(setup.resume, model_config, own.objective)
        # Fewer documents are other batches too. Version 0.2.0 and before trained on all.
        kept = setup.resume.get("flags", {}).get("unique_tokens", 0)
        if own.unique_tokens != kept:
            raise UserError(
                f"--unique_tokens {own.unique_tokens}", f"the run's own, {kept}", "leave it out"
            )
    if own.unique_tokens:
        train.keep_first(own.unique_tokens)
    return model_config, train, held_out


def say_data(train: TextData, batches: Batches, cfg: TrainConfig) -> None:
    """Print what a run reads, and how often."""
    line = (
        f"data: {train.num_documents:,} documents, {len(train.starts):,} rows, "
        f"{train.num_tokens:,} tokens, {batches.epoch_steps:,} steps per epoch"
    )
    if not cfg.minutes:  # the number of steps is not known yet
        line += f"; {cfg.max_steps:,} steps make {batches.passes(cfg.max_steps):,.1f} passes"
    distributed.say(line)


def main(argv=None):
    args = parse_args(argv)
    setup = recipe.read_run(args, kinds=("text",))
    start, own, cfg = setup.own(TextStart), setup.own(TextRun), setup.train_config()
    model_config, train, held_out = read_data(setup, start, own)
    if own.kernels:
        kernels.check(hardware.choose_device(cfg.device))
    # Before the model: this sets the seed of the start weights.
    device = recipe.begin(setup, cfg, own, model_config, cfg)

    model = soft_masks.build(model_config).to(device)
    if start.init_from and not setup.resume:  # a resumed run has weights of its own
        starts.start_from(model, start.init_from, train.tokenizer.fingerprint)
    pad_multiple = PAD_COMPILED if cfg.compile else 1
    batches = Batches(train, cfg.batch_size, cfg.accumulate, cfg.seed, pad_multiple)
    sizes = model_config.trained_sizes
    sized = with_block_sizes(batches, cfg.seed, sizes) if sizes else batches
    if model_config.soft_masks:
        sized = with_soft_steps(batches, cfg.seed, own.soft_share)
    say_data(train, batches, cfg)
    # generate.py draws lengths from it, and the bound pays for lengths under it.
    statistics = {"row_lengths": train.length_histogram().tolist()}
    with kernels.use(model, own.kernels, distributed.say):
        metrics = fit.fit(
            model,
            make_loss(own, model_config, train.tokenizer.mask),
            with_noise(sized, cfg.seed),
            cfg,
            setup.out,
            about=recipe.about("text", own.objective, model_config, train, statistics, own),
            eval_fn=make_eval(own, held_out, statistics),
            preview_fn=make_preview(own, cfg.seed, train.tokenizer, model_config),
            resume=setup.resume,
        )
    recipe.end(setup.out, metrics, "generate.py", ["--num_samples", "5"])


if __name__ == "__main__":
    files.run(main)
