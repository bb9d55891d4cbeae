"""Draw what the network is: the captioner, one block, and the diffusion process, from the real modules.

Reads   a checkpoint (--checkpoint), text or captions; or nothing: then a named size (--model_config)
Writes  docs/ (--out): architecture_captioning, architecture_block, architecture_diffusion, each as .png and .svg;
        a table of modules and parameters on the screen

Seconds on a laptop:
    python visualize_architecture.py
    python visualize_architecture.py --checkpoint checkpoints_caption_poc/best.pt --detailed --out pictures

Every shape and every count is read from the modules, every mask is drawn by diffusion.py and samplers.py.
"""

from pathlib import Path

import numpy as np
import torch

import diffusion
from base import config, files, flags
from base.config import ModelConfig, SampleConfig
from base.files import UserError
from loop import checkpoint
from model import Denoiser
from net import image_encoders, samplers
from show import block_diagram, diagrams
from worlds import drawing, language, scenes

SCENES = {
    "vocab_size": 512,
    "output_size": 509,
    "max_length": 48,
    "length_hidden": config.LENGTH_HIDDEN,
}  # as train_captioning.py has it there
RELATIONS = {"above", "over", "below", "under", "inside", "within"}
CALLS = 4


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("--checkpoint", help="draw this checkpoint's model (text or captions)")
    parser.add_argument(
        "--model_config",
        default="caption",
        metavar="|".join(config.NAMED_SIZES),
        help="else this named size (default caption)",
    )
    parser.add_argument(
        "--detailed",
        action="store_true",
        help="every weight: its shape in the picture of the block, and on the screen",
    )
    parser.add_argument("--out", default="docs", help="folder to write (default %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="decides the example and its masks (default 0)"
    )
    return parser.parse_args(argv)


def open_subject(args) -> tuple[Denoiser, dict | None]:
    """The model, without memory for its weights, and what is known of its image encoder: None for text."""
    if args.checkpoint:
        model, _, saved = checkpoint.open_model(args.checkpoint)
        about = saved.get("encoder")
        found = (
            image_encoders.load(image_encoders.EMBEDDED)
            if about and about["encoder"] == image_encoders.EMBEDDED
            else None
        )
        if found and found.key != about["key"]:
            found = (
                None  # another encoder of this name: only what the checkpoint says of it is true
            )
    else:
        size, about, found = config.named_size(args.model_config), None, None
        if args.model_config == "caption":
            found = image_encoders.load(image_encoders.EMBEDDED)
            about = {"encoder": found.name, "patches": found.patches, "width": found.width}
            size |= {**SCENES, "condition_width": found.width}
        with torch.device("meta"):
            model = Denoiser(ModelConfig(**size))
    if about:
        about = {
            "name": Path(about["encoder"]).name,
            "patches": about["patches"],
            "width": about["width"],
            "model": found,
        }
    return model.to("meta").eval(), about


def example(seed: int) -> tuple[scenes.Scene, list[str]]:
    """A scene of two objects large enough to be seen, and a true caption of eight short words, by our own generators."""
    rng = np.random.default_rng(seed)
    while True:
        scene = scenes.sample_scene(rng, 2)
        for text in (
            language.several(scene, rng) if min(one.radius for one in scene.objects) > 0.11 else ()
        ):
            if len(words := text.split()) == 8 and len(text) <= 36 and RELATIONS & set(words):
                return scene, words


def unmasking(count: int, calls: int, seed: int, sampler: str) -> list[list[bool]]:
    """Which of `count` tokens are there after each of a sampler's calls, the first row being the start."""
    mask = 1
    denoise = lambda tokens, share, select: torch.zeros(
        int(select.sum()), mask
    )  # knows one token, 0, and nothing of an order
    drawn = samplers.sample(
        denoise,
        torch.full((1, count), mask),
        SampleConfig(sampler=sampler, steps=calls),
        mask_id=mask,
        rngs=samplers.row_generators(seed, 1),
        keep_frames=True,
    )
    return [[False] * count, *((frame[0] != mask).tolist() for frame in drawn.frames)]


def encode(encoder: dict, picture) -> dict:
    """Plain values for the diagram: the picture, and if the encoder is at hand its size and the features it gives, as colours."""
    facts = {key: encoder[key] for key in ("name", "patches", "width")} | {
        "image": np.asarray(picture)
    }
    found = encoder["model"]
    if found is None:
        return facts
    features = found.features([picture])[0]  # (P, width)
    centred = features - features.mean(0)
    three = (
        centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:3].T
    )  # (P, 3): the principal components
    colours = 0.6 + 0.35 * torch.tanh(three / (2 * three.std(0)))
    side = int(len(colours) ** 0.5)
    return facts | {
        "parameters": count(found.model),
        "side": found.preprocess.size,
        "features": colours.view(side, side, 3).numpy(),
    }


def count(module) -> int:
    return sum(weight.numel() for weight in module.parameters()) if module is not None else 0


def measure(model: Denoiser, encoder: dict | None) -> dict[str, str]:
    """Output shapes of the modules by name, as forward hooks see them. B, L and M are the sizes that follow the input's."""

    def run(rows: int, length: int) -> dict[str, tuple[int, ...]]:
        seen: dict[str, tuple[int, ...]] = {}
        note = lambda name: (
            lambda module, inputs, output: seen.__setitem__(name, tuple(output.shape))
        )
        hooks = [
            module.register_forward_hook(note(name))
            for name, module in model.named_modules()
            if name
        ]
        with torch.device("meta"), torch.no_grad():
            images = torch.zeros(rows, encoder["patches"], encoder["width"]) if encoder else None
            condition = model.keys_values(images) if encoder else None
            logits = model(
                torch.zeros(rows, length, dtype=torch.long),
                share=torch.ones(rows),
                condition=condition,
            )
            seen["logits"] = (
                rows * length,
                logits.shape[-1],
            )  # the output matrix is applied to selected positions in a row
            if encoder:
                seen["keys"], seen["length"] = (
                    tuple(condition[0][0].shape),
                    tuple(model.length_logits(images).shape),
                )
        for hook in hooks:
            hook.remove()
        return seen

    one, other = run(3, 1), run(5, 2)
    letter = {(3, 5): "B", (1, 2): "L", (3, 10): "M"}
    words = lambda name: ", ".join(
        letter.get(pair, str(pair[0])) for pair in zip(one[name], other[name], strict=True)
    )
    return {name: f"({words(name)})" for name in one}


def describe(model: Denoiser, shapes: dict[str, str]) -> tuple[dict, list[dict]]:
    """The model's figures and those of a block's parts as plain values, for the diagrams. A part's count is with its norm."""
    cfg, block = model.config, model.blocks[0]
    titles = {
        "attention": "self-attention",
        "cross": "cross-attention",
        "mlp": {"swiglu": "SwiGLU", "gelu": "GELU MLP"}[cfg.mlp],
    }
    sight = "to the left only" if cfg.causal else "both directions"
    about = {
        "attention": f"H = {cfg.heads}, {sight}",
        "cross": f"H = {cfg.heads}, to the image",
        "mlp": f"{cfg.d_model} → {block.mlp.up.out_features} → {cfg.d_model}",
    }
    notes = {
        "attention": f"{sight}, {shapes['rotary']}",
        "cross": f"once per picture: k, v {shapes.get('keys')}",
        "mlp": "",
    }
    parts = []
    for kind in titles:
        module, norm = getattr(block, kind), getattr(block, f"{kind}_norm")
        if module is not None:
            weights = {name: tuple(weight.shape) for name, weight in module.named_parameters()}
            parts.append(
                {
                    "kind": kind,
                    "title": titles[kind],
                    "note": notes[kind],
                    "weights": {"norm": tuple(norm.weight.shape), **weights},
                    "count": count(module) + count(norm),
                }
            )
    counts = {part["kind"]: part["count"] for part in parts} | {
        "embedding": count(model.embedding),
        "time": count(model.time),
        "block": count(block),
        "norm": count(model.norm),
        "length": count(model.length_head),
    }
    if block.cross is not None:
        counts["keys"] = sum(
            count(module)
            for one in model.blocks
            for module in (one.cross.key, one.cross.value, one.cross.key_norm)
        )
    facts = {
        "parameters": model.num_parameters(),
        "layers": cfg.layers,
        "width": cfg.d_model,
        "heads": cfg.heads,
        "vocabulary": cfg.vocab_size,
        "causal": cfg.causal,
        "counts": counts,
        "shapes": shapes,
        "titles": titles,
        "about": about,
    }
    return facts, parts


def tables_of(model: Denoiser, parts: list[dict]) -> list[tuple[tuple[int, ...], list[tuple]]]:
    """Every weight, those of the blocks once with how many blocks have it; and every layer. Columns' right edges, then rows."""
    first, layers = "blocks.0.", model.config.layers
    weights = [("weight", "shape", "values", "times")]
    for name, weight in model.named_parameters():
        if not name.startswith("blocks.") or name.startswith(first):
            weights.append(
                (
                    name.replace(first, "block."),
                    " × ".join(map(str, weight.shape)),
                    f"{weight.numel():,}",
                    layers if first in name else 1,
                )
            )
    every = [("layer", *(part["kind"] for part in parts), "sum")]
    for i, block in enumerate(model.blocks):
        members = [
            count(getattr(block, part["kind"])) + count(getattr(block, part["kind"] + "_norm"))
            for part in parts
        ]
        every.append((i, *(f"{number:,}" for number in members), f"{sum(members):,}"))
    total = ("total", "", f"{model.num_parameters():,}", "")
    edges = tuple(range(120, 121 + 80 * len(parts), 80))
    return [
        ((262, 342, 384), [*weights, total]),
        (edges, [*every, ("blocks", *[""] * len(parts), f"{count(model.blocks):,}")]),
    ]


def print_table(model: Denoiser, shapes: dict[str, str], detailed: bool) -> None:
    """Modules, what they give and how many values they hold; detailed: every weight of every submodule, with its own shape."""
    row = lambda name, weight, output, number: print(
        f"{name:<38} {weight:>12} {output:>16} {number:>12}"
    )
    row("weight" if detailed else "module", "shape" if detailed else "", "output", "values")
    for name, weight in model.named_parameters() if detailed else []:
        row(
            name,
            " × ".join(map(str, weight.shape)),
            shapes.get(name.rpartition(".")[0], ""),
            f"{weight.numel():,}",
        )
    for name, module in model.named_children() if not detailed else []:
        row(
            f"{len(module)} blocks" if name == "blocks" else name,
            "",
            shapes["blocks.0" if name == "blocks" else name],
            f"{count(module):,}",
        )
    row("total", "", shapes["logits"], f"{model.num_parameters():,}")


def main(argv=None):
    args = parse_args(argv)
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}", "at least 0", "choose such a number")
    model, encoder = open_subject(args)
    out = files.writable_folder(args.out)
    shapes = measure(model, encoder)
    facts, parts = describe(model, shapes)
    print_table(model, shapes, args.detailed)
    scene, words = example(args.seed)
    n, seen = (
        len(words),
        lambda there: [word if here else "" for word, here in zip(words, there, strict=True)],
    )
    written = [seen(there) for there in unmasking(n, CALLS, args.seed, "first_hitting")]
    now, then = (["[BOS]", *frame, "[EOS]"] for frame in written[1:3])
    if model.config.causal:  # a token a call from the left, and its [EOS] too
        now, then = (
            ["[BOS]", *seen(there), ""]
            for there in unmasking(n, n, args.seed, "left_to_right")[3:5]
        )
    facts_of_encoder = encode(encoder, drawing.draw(scene)) if encoder else None
    paths = diagrams.captioning(
        out / "architecture_captioning",
        facts,
        facts_of_encoder,
        ["[BOS]", *words, "[EOS]"],
        now,
        then,
    )
    paths += block_diagram.block(
        out / "architecture_block", facts, parts, tables_of(model, parts) if args.detailed else []
    )
    rng, free = torch.Generator().manual_seed(args.seed), torch.ones(CALLS + 1, n, dtype=torch.bool)
    masked = [
        seen(there)
        for there in (
            ~diffusion.mask_exactly(free, torch.arange(CALLS + 1) * n // CALLS, rng)
        ).tolist()
    ]
    paths += diagrams.process(
        out / "architecture_diffusion", words, masked, written, encoder is not None
    )
    print("wrote " + "  ".join(map(str, paths)))


if __name__ == "__main__":
    files.run(main)
