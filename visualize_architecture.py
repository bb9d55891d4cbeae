"""Draw what the network is: the captioner, one block, and the diffusion process, from the real modules.

Reads   a checkpoint (--checkpoint), or nothing: then a named size (--model_config)
Writes  docs/ (--out): architecture_captioning, architecture_block, architecture_diffusion, each as .png and .svg;
        a table of parameters on the screen

Seconds on a laptop:
    python visualize_architecture.py
    python visualize_architecture.py --checkpoint checkpoints_caption_poc/best.pt --detailed --out pictures

Every shape and every count on the pictures is read from the modules, every mask is drawn by our own functions.
"""

from pathlib import Path

import torch

import checkpoint
import config
import diffusion
import files
import vision
from config import ModelConfig
from diagrams import Sheet
from model import Denoiser

CAPTION = ["a", "small", "red", "star", "above", "a", "blue", "heart"]
LEGEND = "B batch   L length   D width   H heads   V vocabulary   P patches"


def parse_args(argv):
    parser = config.Parser(__doc__)
    parser.add_argument("--checkpoint", help="draw this checkpoint's model (text or captions)")
    parser.add_argument("--model_config", default="caption", metavar="|".join(config.NAMED_SIZES), help="else this named size (default caption)")
    parser.add_argument("--detailed", action="store_true", help="every weight: on the screen, and its shape in the picture of the block")
    parser.add_argument("--out", default="docs", help="folder to write (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws the masks (default 0)")
    return parser.parse_args(argv)


def open_subject(args) -> tuple[Denoiser, dict]:
    """The model, and its image encoder's facts: name, patches, width, parameters (None where they are not known)."""
    if args.checkpoint:
        model, _, saved = checkpoint.open_model(args.checkpoint)
        encoder = dict(saved.get("encoder") or {})
    else:
        size = config.named_size(args.model_config)
        encoder = {"encoder": vision.EMBEDDED} if args.model_config == "caption" else {}
        if encoder:
            size |= {"vocab_size": 512, "output_size": 509, "max_length": 48, "condition_width": vision.load(vision.EMBEDDED).width}
        model = Denoiser(ModelConfig(**size))
    if encoder.get("encoder") == vision.EMBEDDED:
        found = vision.load(vision.EMBEDDED)
        encoder |= {"patches": found.patches, "width": found.width, "size": found.preprocess.size,
                    "parameters": sum(weight.numel() for weight in found.model.parameters())}
    return model.eval(), encoder


def count(module) -> int:
    return sum(weight.numel() for weight in module.parameters()) if module is not None else 0


def short(number: int) -> str:
    """1234567 -> 1.23 M."""
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.1f} k" if number >= 1e3 else str(number)


def shapes(model: Denoiser, encoder: dict) -> dict[str, tuple[int, ...]]:
    """Output shapes of every module for one row of L tokens, as hooks see them."""
    seen: dict[str, tuple[int, ...]] = {}

    def note(name):
        def hook(module, inputs, output):
            seen[name] = tuple(output.shape)
        return hook
    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    L = model.config.max_length
    tokens = torch.full((1, L), model.config.vocab_size - 1)
    with torch.no_grad():
        condition = model.keys_values(torch.zeros(1, encoder["patches"], encoder["width"])) if encoder else None
        seen["logits"] = tuple(model(tokens, share=torch.ones(1), select=torch.ones(1, L, dtype=torch.bool), condition=condition).shape)
    if condition:
        seen["keys"] = tuple(condition[0][0].shape)
        seen["length"] = tuple(model.length_logits(torch.zeros(1, encoder["patches"], encoder["width"])).shape)
    for hook in hooks:
        hook.remove()
    return seen


def draw_captioning(model: Denoiser, encoder: dict, seen: dict, path: Path) -> list[Path]:
    """Picture to features, once; masked caption to caption, a few times. A text model is the right half alone."""
    cfg, sheet, x = model.config, Sheet(900 if encoder else 460, 470), 475 if encoder else 25
    B = lambda shape: "(B, " + ", ".join(map(str, shape[1:])) + ")"
    title = f"{'Captions' if encoder else 'Text'} by masked diffusion: {short(count(model))} parameters trained"
    sheet.text(sheet.width / 2, 450, title, 12.5, weight="bold")
    if encoder:
        side, known = encoder.get("size"), encoder.get("parameters")
        sheet.box(20, 330, 120, 66, "image", f"(B, 3, {side}, {side})" if side else "as the encoder wants it", "plain")
        sheet.box(190, 330, 190, 66, "image encoder, frozen", f"{Path(encoder['encoder']).name}" + (f", {short(known)}" if known else ""), "frozen")
        sheet.box(190, 215, 190, 66, "standardised patches", f"(B, P, width) = (B, {encoder['patches']}, {encoder['width']})", "frozen")
        cross = sum(count(block.cross.key) + count(block.cross.value) for block in model.blocks)
        sheet.box(190, 100, 190, 66, "keys and values, once", f"{cfg.layers} × 2 × {B(seen['keys'])}\n{short(cross)}", "cross")
        sheet.box(20, 215, 120, 66, "length head", f"{B(seen['length'])}\n{short(count(model.length_head))}", "plain")
        for points in (((140, 363), (190, 363)), ((285, 330), (285, 281)), ((285, 215), (285, 166)), ((190, 248), (140, 248))):
            sheet.arrow(*points)
        sheet.arrow((80, 215), (80, 45), (500, 45), (500, 62), words="how many masks", at=(290, 54))
        sheet.arrow((380, 133), (430, 133), (430, 245), (475, 245), words="attended to\nby every block", at=(428, 264))
    sheet.tokens(x, 62, ["a", "", "", "star", "", "a", "", "heart"], 48)
    sheet.text(x + 192, 36, f"tokens (B, L), L at most {cfg.max_length}", 7.7)
    sheet.box(x, 120, 384, 44, f"embedding, V = {cfg.vocab_size:,}, tied", f"{B(seen['embedding'])}   {short(count(model.embedding))}", "text")
    block = model.blocks[0]
    parts = "self-attention" + (" → cross-attention" if block.cross else "") + " → SwiGLU" if cfg.mlp == "swiglu" else "self-attention → GELU"
    sheet.box(x, 205, 384, 80, f"{cfg.layers} blocks, D = {cfg.d_model}, H = {cfg.heads}",
              f"{parts}\n{B(seen['blocks.0'])}   {cfg.layers} × {short(count(block))}", "attention")
    sheet.box(x, 326, 384, 44, "norm, product with the embedding",
              f"masked positions only: (M, {seen['logits'][-1]})   {short(count(model.norm))}", "text")
    for y0, y1 in ((84, 120), (164, 205), (285, 326), (370, 392)):
        sheet.arrow((x + 192, y0), (x + 192, y1))
    sheet.tokens(x, 392, CAPTION, 48, fresh=(1, 2, 4, 6))
    sheet.arrow((x + 384, 403), (x + 414, 403), (x + 414, 73), (x + 384, 73), dashed=True)
    sheet.text(x + 400, 240, "reveal the surest, repeat", 7.7, rotation=90)
    sheet.text(sheet.width / 2, 12, LEGEND + "   M masked positions", 7.7, color="#616e7c")
    return sheet.save(path)


def draw_block(model: Denoiser, detailed: bool, path: Path) -> list[Path]:
    """One block from the bottom up; --detailed names every weight and its shape."""
    block, cfg = model.blocks[0], model.config
    sight = ("causal" if cfg.causal else "both directions") + ", QK-norm, rotary"
    parts = [("attention", "self-attention", sight, block.attention_norm, block.attention)]
    if block.cross is not None:
        parts.append(("cross", "cross-attention × gate", "to the image's keys and values\nthe gate starts at 0", block.cross_norm, block.cross))
    parts.append(("mlp", {"swiglu": "SwiGLU", "gelu": "GELU"}[cfg.mlp], "", block.mlp_norm, block.mlp))
    lines = lambda module: [f"{name} {' × '.join(map(str, weight.shape))}" for name, weight in module.named_parameters()] if detailed else []
    tall = [104 + 14 * notes.count("\n") + 11 * len(lines(module)) for _, _, notes, _, module in parts]
    sheet = Sheet(640 if detailed else 440, sum(tall) + 120)
    middle, y = 240, 34.0
    sheet.text(sheet.width / 2, sheet.height - 20, f"One of {cfg.layers} blocks: {short(count(block))} parameters", 12.5, weight="bold")
    sheet.text(middle, 18, f"x (B, L, D) = (B, L, {cfg.d_model})", 8.5)
    for (kind, title, notes, norm, module), height in zip(parts, tall, strict=True):
        sheet.arrow((middle, y - 6), (middle, y + 14))
        notes = "\n".join([*filter(None, [notes]), f"after RMSNorm ({norm.weight.numel()}); {short(count(module))}"])
        sheet.box(middle - 130, y + 14, 260, height - 46, title, notes, kind)
        sheet.arrow((middle, y + height - 32), (middle, y + height - 20))
        sheet.arrow((middle, y + 2), (middle - 165, y + 2), (middle - 165, y + height - 12), (middle - 8, y + height - 12))
        sheet.plus(middle, y + height - 12)
        sheet.text(middle + 150, y + height / 2 + 2, "\n".join(lines(module)), 8, ha="left", family="monospace", linespacing=1.45)
        y += height
    sheet.arrow((middle, y - 4), (middle, y + 24))
    sheet.text(middle, y + 34, f"x (B, L, {cfg.d_model})", 8.5)
    return sheet.save(path)


def draw_process(seed: int, path: Path) -> list[Path]:
    """From clean to masked by our own masks, and back by reveals; the loss in between."""
    sheet, rng, n, x = Sheet(800, 440), torch.Generator().manual_seed(seed), len(CAPTION), 120
    free, width = torch.ones(1, n, dtype=torch.bool), 58
    sheet.text(400, 420, "The process: mask, and learn to unmask", 12.5, weight="bold")
    for row, count_masked in enumerate((0, 2, 5, n)):
        hidden = diffusion.mask_exactly(free, torch.tensor([count_masked]), rng)[0].tolist()
        y = 368 - 34 * row
        sheet.tokens(x, y, ["" if gone else word for word, gone in zip(CAPTION, hidden, strict=True)], width)
        share = {0: "t = 0, clean", n: "t = 1, all masked"}.get(count_masked, f"t = {count_masked / n:.2f}")
        sheet.text(x - 12, y + 11, share, 8.3, ha="right")
    sheet.arrow((x + n * width + 20, 385), (x + n * width + 20, 270))
    sheet.text(x + n * width + 30, 328, "training:\nmask exactly k\nof n tokens,\nk uniform", 8.3, ha="left", linespacing=1.5)
    sheet.box(x, 185, n * width, 58, "", "", "plain")
    bound = r"$-\log p(x)\;\leq\;\sum_{k=1}^{n}\;\mathrm{E}_{|S|=k}\,\frac{1}{k}\sum_{i\in S}-\log p_\theta(x_i\,|\,x_{\setminus S})$"
    sheet.text(x + n * width / 2, 214, bound, 12)
    sheet.text(x + n * width + 30, 214, "one draw of k and S a row,\ntimes n: the whole bound,\nno weight to clamp", 8.3, ha="left", linespacing=1.5)
    order, known = torch.randperm(n, generator=rng).tolist(), 0
    for row, shown in enumerate((0, 2, 5, n)):
        y = 145 - 34 * row
        visible, fresh = set(order[:shown]), tuple(order[known:shown])
        sheet.tokens(x, y, [word if i in visible else "" for i, word in enumerate(CAPTION)], width, fresh=fresh)
        sheet.text(x - 12, y + 11, f"call {row}" if row else "start", 8.3, ha="right")
        known = shown
    sheet.arrow((x + n * width + 20, 162), (x + n * width + 20, 46))
    sheet.text(x + n * width + 30, 105, "sampling:\na few tokens a call,\nall positions in parallel", 8.3, ha="left", linespacing=1.5)
    return sheet.save(path)


def main(argv=None):
    args = parse_args(argv)
    model, encoder = open_subject(args)
    out = files.writable_folder(args.out)
    seen = shapes(model, encoder)
    rows = list(model.named_parameters()) if args.detailed else []
    for name, weight in rows:
        print(f"{name:<40} {' × '.join(map(str, weight.shape)):>14} {weight.numel():>12,}")
    for name, module in model.named_children() if not rows else []:
        print(f"{name:<40} {str(seen.get(name, '')):>14} {count(module):>12,}")
    print(f"{'total':<55} {model.num_parameters():>12,}")
    written = draw_captioning(model, encoder, seen, out / "architecture_captioning")
    written += draw_block(model, args.detailed, out / "architecture_block")
    written += draw_process(args.seed, out / "architecture_diffusion")
    print("wrote " + "  ".join(map(str, written)))


if __name__ == "__main__":
    files.run(main)
