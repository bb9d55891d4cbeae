"""What a network is made of, as plain values: shapes, counts, and the rows of tables.

Nothing is typed by hand. Shapes come from forward hooks, counts from the weights. The model may be
on torch's `meta` device, where it needs no memory.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from model import Block, Denoiser
from net.experts import idle_parameters, refuse

# Two runs, of different rows B and lengths L. A size that follows them is shown as a letter.
FIRST, SECOND = (3, 1), (5, 2)
LETTERS = {(3, 5): "B", (1, 2): "L", (3, 10): "M"}  # M = B·L: here every position is selected

Shape = tuple[int, ...]
Condition = tuple[int, int]  # patches P and width of the features
Row = tuple[str | int, ...]


def count(module: nn.Module | None) -> int:
    """The values of a module; 0 if the model has no such module."""
    if module is None:
        return 0
    return sum(weight.numel() for weight in module.parameters())


def product(shape: Shape) -> str:
    """(48, 36) -> "48 × 36"."""
    return " × ".join(map(str, shape))


def blocks_of(model: Denoiser) -> list[Block]:
    return cast(list[Block], list(model.blocks))


# ---- Shapes


def output_shapes(model: Denoiser, condition: Condition | None) -> dict[str, str]:
    """What each module gives: its name -> such as "(B, L, 256)". condition: if it reads features.

    Four names are no modules: `logits`, `keys` and `length` of the whole model, `rotary`.
    """
    first = shapes_of_run(model, condition, *FIRST)
    second = shapes_of_run(model, condition, *SECOND)
    result = {}
    for name, shape in first.items():
        pairs = zip(shape, second[name], strict=True)
        result[name] = "(" + ", ".join(LETTERS.get(pair, str(pair[0])) for pair in pairs) + ")"
    return result


def shapes_of_run(
    model: Denoiser, condition: Condition | None, rows: int, length: int
) -> dict[str, Shape]:
    """The output shapes of all modules in one run on `rows` texts of `length` tokens."""
    shapes: dict[str, Shape] = {}

    def note(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            shapes[name] = tuple(output.shape)

        return hook

    hooks = [
        module.register_forward_hook(note(name)) for name, module in model.named_modules() if name
    ]
    # Shapes need no numbers: on meta, a model of any size takes no time.
    with torch.device("meta"), torch.no_grad():
        keys_values = None
        if condition is not None:
            features = torch.zeros(rows, *condition)
            keys_values = model.keys_values(features)
            shapes["keys"] = tuple(keys_values[0][0].shape)
            if model.length_head is not None:
                shapes["length"] = tuple(model.length_logits(features).shape)
        tokens = torch.zeros(rows, length, dtype=torch.long)
        logits = model(tokens, share=torch.ones(rows), condition=keys_values)
        # The output matrix is applied to the selected positions, listed row by row.
        shapes["logits"] = (rows * length, logits.shape[-1])
    for handle in hooks:
        handle.remove()
    return shapes


# ---- Figures for the diagrams


def describe(model: Denoiser, shapes: dict[str, str]) -> tuple[dict, list[dict]]:
    """The figures of a model, and of the parts of its blocks: plain values for the diagrams.

    Raises UserError for experts: a diagram has one feed-forward part in each block.
    """
    config = model.config
    refuse(config, "a diagram", "name a checkpoint without --experts")
    sight = "to the left only" if config.causal else "both directions"
    block = blocks_of(model)[0]
    titles = {
        "attention": "self-attention",
        "cross": "cross-attention",
        "mlp": "SwiGLU" if config.mlp == "swiglu" else "GELU MLP",
    }
    about = {
        "attention": f"H = {config.heads}, {sight}",
        "cross": f"H = {config.heads}, to the image",
        "mlp": f"{config.d_model} → {block.mlp.up.out_features} → {config.d_model}",
    }
    notes = {
        "attention": f"{sight}, {shapes['rotary']}",
        "cross": f"once per picture: k, v {shapes.get('keys')}",
        "mlp": "",
    }
    parts = [describe_part(block, kind, titles[kind], notes[kind]) for kind in kinds_of(block)]
    facts = {
        "parameters": model.num_parameters(),
        "layers": config.layers,
        "width": config.d_model,
        "heads": config.heads,
        "vocabulary": config.vocab_size,
        "causal": config.causal,
        "counts": counts_of(model),
        "shapes": shapes,
        "titles": titles,
        "about": about,
    }
    return facts, parts


def kinds_of(block: Block) -> list[str]:
    """The parts that a block has: attention, cross if there is a condition, mlp."""
    return [kind for kind in ("attention", "cross", "mlp") if getattr(block, kind) is not None]


def part_count(block: Block, kind: str) -> int:
    """The values of a block's part, with its norm."""
    return count(getattr(block, kind)) + count(getattr(block, f"{kind}_norm"))


def describe_part(block: Block, kind: str, title: str, note: str) -> dict:
    """Title, note, weights' shapes and count of a block's part."""
    weights = {"norm": tuple(getattr(block, f"{kind}_norm").weight.shape)}
    for name, weight in getattr(block, kind).named_parameters():
        weights[name] = tuple(weight.shape)
    return {
        "kind": kind,
        "title": title,
        "note": note,
        "weights": weights,
        "count": part_count(block, kind),
    }


def counts_of(model: Denoiser) -> dict[str, int]:
    """Values by name: a block, its parts, all layers' keys and values, and the other modules."""
    blocks = blocks_of(model)
    counts = {kind: part_count(blocks[0], kind) for kind in kinds_of(blocks[0])}
    counts |= {
        "embedding": count(model.embedding),
        "time": count(model.time),
        "block": count(blocks[0]),
        "norm": count(model.norm),
        "length": count(model.length_head),
        "reader": count(getattr(model, "reader", None)),
    }
    if blocks[0].cross is not None:
        counts["keys"] = 0
        for block in blocks:
            assert block.cross is not None
            for module in (block.cross.key, block.cross.value, block.cross.key_norm):
                counts["keys"] += count(module)
    return counts


def training_flops(model: Denoiser, length: int, patches: int = 0, rows: int = 1) -> float:
    """Operations to train on one token: 6·N + 12·layers·(L + P)·D, every position's logits
    included (arXiv 2204.02311, appendix B). `rows` rows share the keys of P patches.
    Of experts, N counts those that an average token passes. Patch layers read each of the P patches
    once for all rows, and once more for the length head, without a gradient (net/patch_reader.py).
    """
    per_position = 12 * model.config.layers * model.config.d_model
    read = patches + length / (2 if model.config.causal else 1)
    once = per_position * model.config.condition_width if patches else 0
    reader = count(getattr(model, "reader", None))  # it reads patches, not tokens
    active = model.num_parameters() - idle_parameters(model) - reader
    share = patches / (length * rows)  # patches that are read per token
    matrices = 6 * active + once * (share - 1)
    of_patches = 8 * reader + 16 * model.config.patch_layers * model.config.d_model * patches
    return matrices + per_position * read + share * of_patches


def colours(features: Tensor) -> Tensor:
    """Features (P, width) of a square grid as colours: (side, side, 3) in 0 .. 1.

    The first three principal components become red, green and blue.
    """
    centred = features - features.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:3]
    three = centred @ axes.T  # (P, 3)
    three = 0.6 + 0.35 * torch.tanh(three / (2 * three.std(0)))  # bright, and never clipped
    side = int(len(three) ** 0.5)
    return three.view(side, side, 3)


# ---- Tables


def weight_table(model: Denoiser) -> list[Row]:
    """Every weight with shape, values and how often it occurs; a block's weights stand once."""
    rows: list[Row] = [("weight", "shape", "values", "times")]
    for name, weight in model.named_parameters():
        # All blocks have the same shapes, so the first one stands for all.
        if name.startswith("blocks.") and not name.startswith("blocks.0."):
            continue
        times = model.config.layers if name.startswith("blocks.") else 1
        label = name.replace("blocks.0.", "block.")
        rows.append((label, product(weight.shape), f"{weight.numel():,}", times))
    rows.append(("total", "", f"{model.num_parameters():,}", ""))
    return rows


def layer_table(model: Denoiser) -> list[Row]:
    """The values of every layer by part."""
    blocks = blocks_of(model)
    kinds = kinds_of(blocks[0])
    rows: list[Row] = [("layer", *kinds, "sum")]
    for number, block in enumerate(blocks):
        values = [part_count(block, kind) for kind in kinds]
        rows.append((number, *(f"{value:,}" for value in values), f"{sum(values):,}"))
    rows.append(("blocks", *([""] * len(kinds)), f"{count(model.blocks):,}"))
    return rows


def screen_table(model: Denoiser, shapes: dict[str, str], detailed: bool) -> list[Row]:
    """Name, shape, output, values: of every module, or (detailed) of every weight."""
    rows: list[Row] = [("weight", "shape", "output", "values")]
    if detailed:
        for name, weight in model.named_parameters():
            output = shapes.get(name.rpartition(".")[0], "")
            rows.append((name, product(weight.shape), output, f"{weight.numel():,}"))
    else:
        rows = [("module", "", "output", "values")]
        for name, module in model.named_children():
            label, output = name, name
            if name == "blocks":
                label, output = f"{model.config.layers} blocks", "blocks.0"
            rows.append((label, "", shapes[output], f"{count(module):,}"))
    rows.append(("total", "", shapes["logits"], f"{model.num_parameters():,}"))
    return rows
