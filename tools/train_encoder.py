"""Train the small image encoder that ships in assets/: a convolutional tower, on synthetic scenes, as CLIP and CoCa are.

Reads   a folder from prep_caption_synthetic.py --encoder none (its train split, val to score)
Writes  runs/encoder/ (--out): best.pt, resume.pt, log.jsonl, and scene_encoder.safetensors

A few minutes on a laptop, to see it work:
    python prep_caption_synthetic.py --out data_encoder --num_train 2000 --num_val 200 --encoder none
    python -m tools.train_encoder --data_dir data_encoder --max_steps 300
What made assets/scene_encoder.safetensors is in that file's metadata and in LOG.md.

Losses, summed: captioning by masked diffusion through cross-attention to the patches (as CoCa's, arXiv
2205.01917, with our own objective in place of left-to-right), contrastive between image and caption (CLIP, arXiv
2103.00020), and, because an hour of CPU is short, what each patch shows: size, fill, colour and shape of the object
over its centre. Half of the pictures are shown in exchanged colours, turned and mirrored, and teach only what has no
colour: else shape is read off the colour that it came with, and pairs never seen are misread. Pairs, relations and counts held out of the
train split are held out of the encoder too.
"""

import shlex
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import diffusion
from base import files, flags
from base.config import ModelConfig, TrainConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from caption.data import CaptionBatches
from loop import checkpoint, distributed, fit
from loop.batches import to_device
from model import Denoiser
from net import image_encoders
from tools.pixels import STRIDE, Pixels, recolour, turn
from worlds.scenes import CLASSES

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
DEFAULTS = {
    "max_steps": 4000,
    "batch_size": 64,
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "warmup_steps": 60,
    "final_learning_rate": 0.02,
    "weight_decay": 0.05,
    "ema": 0.99,
    "eval_every": 250,
    "save_every": 250,
}


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--data_dir",
        default="data_encoder",
        help="folder from prep_caption_synthetic.py (default %(default)s)",
    )
    parser.add_argument("--out", default="runs/encoder", help="run folder (default %(default)s)")
    parser.add_argument(
        "--width",
        type=int,
        default=176,
        help="channels of the last stage; the first two have a quarter and a half (default 176)",
    )
    parser.add_argument(
        "--image_size",
        type=int,
        default=128,
        help="side of its input in pixels, 16 times the grid's side (default 128)",
    )
    parser.add_argument(
        "--patch_weight", type=float, default=1.0, help="weight of the loss on patches (default 1)"
    )
    parser.add_argument(
        "--contrastive_weight",
        type=float,
        default=0.1,
        help="weight of the contrastive loss (default 0.1)",
    )
    parser.add_argument(
        "--recolour",
        type=float,
        default=0.5,
        help="share shown turned, in exchanged colours: they teach shape alone (default 0.5)",
    )
    parser.add_argument(
        "--init_from", help="start from this encoder (*.safetensors) of the same width"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="must",
        choices=("must", "auto"),
        help="go on from resume.pt in --out; auto: if there is one, else begin (for torchrun --max-restarts)",
    )
    parser.add_settings(TrainConfig, **DEFAULTS)
    return parser.parse_args(argv)


class Pretraining(nn.Module):
    """The encoder and what teaches it: a captioner with cross-attention, a text tower, four heads on the patches."""

    def __init__(self, settings: dict, tokenizer: Tokenizer, longest: int):
        super().__init__()
        D = settings["hidden_sizes"][-1] + 16
        self.encoder = image_encoders.SceneTower(settings)
        shape = dict(
            vocab_size=tokenizer.vocab_size,
            output_size=tokenizer.output_size,
            max_length=longest,
            d_model=D,
            heads=4,
        )
        self.captioner = Denoiser(ModelConfig(**shape, layers=3, condition_width=D))
        self.captioner.length_head = None  # nothing here asks how long a caption will be
        self.text = Denoiser(ModelConfig(**shape, layers=2))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(D, len(names) + 1) for name, names in CLASSES.items()}
        )
        self.image_out, self.text_out, self.scale = (
            nn.Linear(D, 128, bias=False),
            nn.Linear(D, 128, bias=False),
            nn.Parameter(torch.tensor([2.3])),
        )
        for block in self.captioner.blocks:
            nn.init.ones_(
                block.cross.gate
            )  # trained together from the start, so the gate need not be the identity

    @property
    def device(self):
        return self.scale.device

    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.parameters())

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, size, size, 3) uint8 -> (B, P, D)."""
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (MEAN, STD))
        x = pixels.to(self.device).permute(0, 3, 1, 2).float() / 255
        return self.encoder(pixel_values=(x - mean) / std).last_hidden_state

    def losses(
        self, batch: dict, rng, mask_id: int, recoloured: int = 0
    ) -> dict[str, torch.Tensor]:
        """The three losses, and the heads' accuracy over objects. The last `recoloured` pictures are shown turned and in other colours: they
        have no true caption, and no loss on colour."""
        tokens, lengths, free = to_device(batch, self.device)
        n = len(tokens) - recoloured
        pixels, targets, weights = batch["pixels"], batch["targets"], batch["patch_weights"]
        if recoloured:
            grid = round(targets.shape[1] ** 0.5)
            other = turn(
                rng,
                recolour(pixels[n:], rng),
                targets[n:].unflatten(1, (grid, grid)),
                weights[n:].unflatten(1, (grid, grid)),
            )
            pixels = torch.cat([pixels[:n], other[0]])
            targets, weights = (
                torch.cat([targets[:n], other[1].flatten(1, 2)]),
                torch.cat([weights[:n], other[2].flatten(1, 2)]),
            )
        seen = self.patches(pixels)  # (B, P, D)
        tokens, lengths, free = tokens[:n], lengths[:n], free[:n]
        denoise = self.captioner.bind(lengths, self.captioner.keys_values(seen[:n]))
        caption, _ = diffusion.loss(denoise, tokens, free, mask_id=mask_id, rng=rng)
        word = self.text.trunk(tokens, lengths, None, None, None) * free[..., None]
        image, text = (
            self.image_out(seen[:n].mean(1)),
            self.text_out(word.sum(1) / free.sum(1, keepdim=True)),
        )
        match = (
            self.scale.clamp(max=4.6).exp()
            * F.normalize(image.float(), dim=-1)
            @ F.normalize(text.float(), dim=-1).T
        )  # (n, n)
        right = torch.arange(n, device=self.device)
        targets, weights = targets.to(self.device), weights.to(self.device)
        patch, hits = 0.0, {}
        for i, (name, head) in enumerate(self.heads.items()):
            shown = n if name == "colour" else len(seen)
            logits, target = head(seen[:shown]).float(), targets[:shown, :, i]
            weight = weights[:shown].flatten()
            classes = torch.where(target < 0, logits.shape[-1] - 1, target)
            patch = (
                patch
                + (
                    F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none")
                    * weight
                ).sum()
                / weight.sum()
                / 4
            )
            hits[f"{name}_accuracy"] = ((logits.argmax(-1) == classes) * weights[:shown])[
                target >= 0
            ].sum() / weights[:shown][target >= 0].sum()
        return {
            "caption": caption,
            "contrastive": 0.5 * (F.cross_entropy(match, right) + F.cross_entropy(match.T, right)),
            "patch": patch,
            **hits,
        }


def main(argv=None):
    args = parse_args(argv)
    if args.image_size < 32 or args.image_size % STRIDE or args.width < 16 or args.width % 16:
        raise UserError(
            f"--image_size {args.image_size} --width {args.width}",
            "multiples of 16, of at least 32 and 16",
            "choose other sizes",
        )
    if not 0 <= args.recolour < 1:
        raise UserError(
            f"--recolour {args.recolour}", "a share of at least 0 and below 1", "for example 0.5"
        )
    out = Path(args.out)
    distributed.start()
    resume = fit.find_resume(out, args.resume, ("encoder",))
    cfg = flags.resolve(TrainConfig, args, DEFAULTS, resume["train"] if resume else {})
    distributed.claim(out)
    fit.start(cfg)
    settings = {
        "embedding_size": 32,
        "hidden_sizes": [args.width // 4, args.width // 2, args.width],
        "depths": [1, 2, 3],
        "layer_type": "basic",
    }
    preprocess = image_encoders.Preprocess(args.image_size, "squash", MEAN, STD)
    with distributed.leader_first():  # the pictures are decoded once
        data, held_out = (Pixels(args.data_dir, split, preprocess) for split in ("train", "val"))
    mask_id, longest = data.tokenizer.mask, max(data.texts.longest, held_out.texts.longest)
    model = Pretraining(settings, data.tokenizer, longest)
    if args.init_from and not resume:
        model.encoder.load_state_dict(
            image_encoders.read_weights(args.init_from, settings)[0], strict=False
        )
    distributed.say(
        f"encoder: {sum(w.numel() for w in model.encoder.parameters()):,} parameters; {len(data):,} pictures"
    )

    def loss_fn(model, batch, rng):
        losses = model.losses(batch, rng, mask_id, int(args.recolour * len(batch["tokens"])))
        total = (
            losses["caption"]
            + args.contrastive_weight * losses["contrastive"]
            + args.patch_weight * losses["patch"]
        )
        return total, {name: value.item() for name, value in losses.items()}

    @torch.no_grad()
    def eval_fn(model):
        rng, sums = torch.Generator().manual_seed(0), {}
        for first in range(0, len(held_out), 50):
            numbers = np.arange(first, min(first + 50, len(held_out)))
            for name, value in model.losses(
                held_out.batch(numbers, [[0]] * len(numbers)), rng, mask_id
            ).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(numbers) / len(held_out)
        return sums

    about = {
        "kind": "encoder",
        "objective": "diffusion",
        "model": settings,
        "tokenizer": data.tokenizer.to_json(),
        "statistics": {},
        "data": {},
    }
    batches = CaptionBatches(data, cfg.batch_size, cfg.accumulate, cfg.seed)
    fit.fit(model, loss_fn, batches, cfg, out, about=about, eval_fn=eval_fn, resume=resume)
    if distributed.leads():
        model.load_state_dict(checkpoint.load(out / "best.pt", kinds=("encoder",))["averaged"])
        command = shlex.join(
            ["python", "train_encoder.py", *(sys.argv[1:] if argv is None else argv)]
        )
        image_encoders.save_embedded(
            out / "scene_encoder.safetensors", model.encoder, settings, preprocess, command
        )
        print(
            f"done: {out / 'scene_encoder.safetensors'}; SHA-256 {files.file_digest(out / 'scene_encoder.safetensors').hex()[:16]}"
        )
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
