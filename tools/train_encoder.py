"""Train the small image encoder that ships in assets/: a convolutional tower, on synthetic scenes.

Reads   a folder from prep_caption_synthetic.py --encoder none (its train split, val to score)
Writes  runs/encoder/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt, and
        scene_encoder.safetensors

A few minutes on a laptop, to see it work:
    python prep_caption_synthetic.py --out data_encoder --num_train 2000 --encoder none
    python -m tools.train_encoder --data_dir data_encoder --max_steps 300
The command that made assets/scene_encoder.safetensors is in that file's metadata.

Three losses are added:
- captioning by masked diffusion, with cross-attention to the patches: as in CoCa
  (arXiv 2205.01917), with our objective in place of the left-to-right objective;
- the contrastive loss between image and caption (CLIP, arXiv 2103.00020);
- what each patch shows: size, fill, colour and shape of the object over the patch's centre.
  An hour of CPU is too short to learn them from captions alone.
Half of the images are turned, mirrored and shown in exchanged colours, and teach only what has no
colour. Otherwise the encoder guesses the shape from the colour that came with it, and misreads new
pairs. Whatever is held out of the train split is held out of the encoder too.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import diffusion
from base import files, flags
from base.config import ModelConfig, TrainConfig
from base.files import UserError
from base.flags import setting
from base.tokenizer import Tokenizer
from caption.data import CaptionBatches
from loop import checkpoint, distributed, fit, recipe
from loop.batches import to_device
from model import Denoiser
from net import image_encoders
from tools.pixels import STRIDE, Pixels, recolour, turn
from worlds.scenes import CLASSES

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # of the encoder's input, per channel
MATCHED = 128  # channels in which images and captions are compared
EVAL_BATCH = 50  # images scored at one time
HOTTEST = 4.6  # log of the largest factor on the similarities, about 100 as in CLIP


@dataclass
class EncoderRun:
    """The encoder and its losses."""

    data_dir: str = setting(
        "data_encoder", "folder from prep_caption_synthetic.py", metavar="FOLDER"
    )
    width: int = setting(
        176, "channels of the last stage; the first two have a quarter and a half", at_least=16
    )
    image_size: int = setting(
        128, "side of its input in pixels, 16 times the grid's side", at_least=32
    )
    patch_weight: float = setting(1.0, "weight of the loss on patches")
    contrastive_weight: float = setting(0.1, "weight of the contrastive loss")
    recolour: float = setting(
        0.5,
        "share shown turned, in exchanged colours: these images teach shape alone",
        at_least=0,
        below=1,
    )
    init_from: str | None = setting(
        None, "start from this encoder (*.safetensors) of the same width", metavar="FILE"
    )

    def __post_init__(self):
        flags.check(self)
        if self.image_size % STRIDE or self.width % 16:
            raise UserError(
                f"--image_size {self.image_size} --width {self.width}",
                "multiples of 16",
                "choose other sizes",
            )


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="runs/encoder")
    parser.add_settings(EncoderRun)
    parser.add_settings(
        TrainConfig,
        max_steps=4000,
        batch_size=64,
        optimizer="adamw",
        learning_rate=2e-3,
        warmup_steps=60,
        final_learning_rate=0.02,
        weight_decay=0.05,
        ema=0.99,
        eval_every=250,
        save_every=250,
    )
    return parser.parse_args(argv)


class Pretraining(nn.Module):
    """The encoder and its teachers: a captioner, a text tower, and four heads on the patches.

    settings: of the encoder. longest: tokens of the longest caption. D is the encoder's width.
    """

    def __init__(self, settings: dict, tokenizer: Tokenizer, longest: int):
        super().__init__()
        D = settings["hidden_sizes"][-1] + 16  # 16 fixed position channels
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
        heads = {}
        for name, classes in CLASSES.items():
            heads[name] = nn.Linear(D, len(classes) + 1)  # the last class: no object
        self.heads = nn.ModuleDict(heads)
        self.image_out = nn.Linear(D, MATCHED, bias=False)
        self.text_out = nn.Linear(D, MATCHED, bias=False)
        self.scale = nn.Parameter(torch.tensor([2.3]))
        for block in self.captioner.blocks:
            # Both are trained from the start, so the gate need not be the identity.
            nn.init.ones_(block.cross.gate)

    @property
    def device(self) -> torch.device:
        return self.scale.device

    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.parameters())

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, size, size, 3) uint8 -> features of the patches (B, P, D)."""
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (MEAN, STD))
        x = pixels.to(self.device).permute(0, 3, 1, 2).float() / 255  # (B, 3, size, size)
        return self.encoder(pixel_values=(x - mean) / std).last_hidden_state

    def losses(
        self, batch: dict, rng: torch.Generator, mask_id: int, recoloured: int = 0
    ) -> dict[str, torch.Tensor]:
        """The three losses, and the heads' accuracy over objects.

        The last `recoloured` images are shown turned and in other colours. They have no true
        caption, and no loss on colour.
        """
        tokens, lengths, free = to_device(batch, self.device)
        n = len(tokens) - recoloured
        pixels, targets, weights = self.shown(batch, n, rng)
        seen = self.patches(pixels)  # (B, P, D)
        tokens, free = tokens[:n], free[:n]
        lengths = None if lengths is None else lengths[:n]
        denoise = self.captioner.bind(lengths, self.captioner.keys_values(seen[:n]))
        caption, _ = diffusion.loss(denoise, tokens, free, mask_id=mask_id, rng=rng)
        contrastive = self.contrastive_loss(seen[:n], tokens, lengths, free)
        patch, hits = self.patch_loss(seen, n, targets.to(self.device), weights.to(self.device))
        return {"caption": caption, "contrastive": contrastive, "patch": patch, **hits}

    def shown(self, batch: dict, n: int, rng: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Pixels, targets and weights of a batch; images from number n on turned and recoloured."""
        pixels, targets, weights = batch["pixels"], batch["targets"], batch["patch_weights"]
        if n == len(pixels):
            return pixels, targets, weights
        grid = round(targets.shape[1] ** 0.5)
        turned = turn(
            rng,
            recolour(pixels[n:], rng),
            targets[n:].unflatten(1, (grid, grid)),
            weights[n:].unflatten(1, (grid, grid)),
        )
        return (
            torch.cat([pixels[:n], turned[0]]),
            torch.cat([targets[:n], turned[1].flatten(1, 2)]),
            torch.cat([weights[:n], turned[2].flatten(1, 2)]),
        )

    def contrastive_loss(self, seen, tokens, lengths, free) -> torch.Tensor:
        """Find each image's caption in the batch, and each caption's image (CLIP)."""
        words = self.text.trunk(tokens, lengths, None, None, None) * free[..., None]  # (n, L, D)
        image = self.image_out(seen.mean(1))
        text = self.text_out(words.sum(1) / free.sum(1, keepdim=True))
        factor = self.scale.clamp(max=HOTTEST).exp()
        image = F.normalize(image.float(), dim=-1)
        text = F.normalize(text.float(), dim=-1)
        match = factor * image @ text.T  # (n, n)
        right = torch.arange(len(seen), device=self.device)
        return 0.5 * (F.cross_entropy(match, right) + F.cross_entropy(match.T, right))

    def patch_loss(
        self, seen: torch.Tensor, n: int, targets: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What each patch shows: the mean loss of the four heads, and their accuracy over objects.

        targets: (B, P, 4), -1 where no object is. weights: (B, P). Images from number n on are
        recoloured.
        """
        loss: torch.Tensor | float = 0.0
        hits = {}
        for index, (name, head) in enumerate(self.heads.items()):
            # A recoloured image has no true colour; its size, fill and shape are still true.
            count = n if name == "colour" else len(seen)
            logits = head(seen[:count]).float()
            target, weight = targets[:count, :, index], weights[:count]
            is_object = target >= 0
            classes = torch.where(is_object, target, logits.shape[-1] - 1)
            nats = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none")
            loss = loss + (nats * weight.flatten()).sum() / weight.flatten().sum() / 4
            right = (logits.argmax(-1) == classes) * weight
            hits[f"{name}_accuracy"] = right[is_object].sum() / weight[is_object].sum()
        return loss, hits


def make_loss(own: EncoderRun, mask_id: int):
    """loss_fn for `fit`: the weighted sum of the three losses."""

    def loss_fn(model, batch, rng):
        losses = model.losses(batch, rng, mask_id, int(own.recolour * len(batch["tokens"])))
        total = (
            losses["caption"]
            + own.contrastive_weight * losses["contrastive"]
            + own.patch_weight * losses["patch"]
        )
        return total, {name: value.item() for name, value in losses.items()}

    return loss_fn


def make_eval(held_out: Pixels, mask_id: int):
    """eval_fn for `fit`: the losses on val, whose first figure, the caption's, chooses best.pt."""

    @torch.no_grad()
    def eval_fn(model):
        rng = torch.Generator().manual_seed(0)
        means: dict[str, float] = {}
        for first in range(0, len(held_out), EVAL_BATCH):
            # The same captions and noise at every evaluation, so that steps compare.
            numbers = np.arange(first, min(first + EVAL_BATCH, len(held_out)))
            batch = held_out.batch(numbers, [[0]] * len(numbers))  # each image's first caption
            for name, value in model.losses(batch, rng, mask_id).items():
                share = value.item() * len(numbers) / len(held_out)
                means[name] = means.get(name, 0.0) + share
        return means

    return eval_fn


def save_encoder(out: Path, model: Pretraining, settings: dict, preprocess, words) -> None:
    """Write the encoder of best.pt alone, with the command that made it.

    words: the command's flags.
    """
    model.load_state_dict(checkpoint.load(out / "best.pt", kinds=("encoder",))["averaged"])
    command = shlex.join(["python", "-m", "tools.train_encoder", *words])
    path = out / "scene_encoder.safetensors"
    image_encoders.save_embedded(path, model.encoder, settings, preprocess, command)
    print(f"done: {path}; SHA-256 {files.file_digest(path).hex()[:16]}")


def settings_of(own: EncoderRun) -> dict:
    """The sizes of the encoder, as transformers' ResNetConfig names them.

    A ResNet: after 28,800 images it read 55% of the shapes, and a ViT 25% (docs/log/captions.md,
    which small image encoder).
    """
    return {
        "embedding_size": 32,
        "hidden_sizes": [own.width // 4, own.width // 2, own.width],
        "depths": [1, 2, 3],
        "layer_type": "basic",
    }


def refuse_other_sizes(resume: dict, own: EncoderRun, settings: dict) -> None:
    """Raise UserError unless the encoder's sizes are those of the resumed run."""
    # Refused here, because torch would name tensors and not flags. Runs of version 0.1.0 did not
    # store the side of the image.
    side = resume.get("flags", {}).get("image_size", own.image_size)
    width = resume["model"]["hidden_sizes"][-1]
    if resume["model"] != settings or side != own.image_size:
        raise UserError(
            f"--width {own.width} --image_size {own.image_size}",
            f"the sizes of the run, --width {width} --image_size {side}",
            "give these flags, or choose another --out",
        )


def read_data(setup: recipe.Setup, own: EncoderRun, preprocess) -> tuple[Pixels, Pixels]:
    """The images of both splits. Raises UserError if a resumed run had other images."""
    with distributed.leader_first():  # the images are decoded once
        train, held_out = (Pixels(own.data_dir, split, preprocess) for split in ("train", "val"))
    # Version 0.1.0 stored no fingerprint.
    if setup.resume and setup.resume["data"]:
        before = [setup.resume["data"]["fingerprint"]]
        recipe.refuse_other_data(own.data_dir, "images", [train.fingerprint], before)
    return train, held_out


def main(argv=None):
    args = parse_args(argv)
    setup = recipe.read_run(args, kinds=("encoder",))
    own, cfg = setup.own(EncoderRun), setup.train_config()
    settings = settings_of(own)
    if setup.resume:
        refuse_other_sizes(setup.resume, own, settings)
    recipe.begin(setup, cfg, own, cfg)
    preprocess = image_encoders.Preprocess(own.image_size, "squash", MEAN, STD)
    train, held_out = read_data(setup, own, preprocess)
    mask_id, longest = train.tokenizer.mask, max(train.texts.longest, held_out.texts.longest)
    model = Pretraining(settings, train.tokenizer, longest)
    if own.init_from and not setup.resume:
        weights, _ = image_encoders.read_weights(own.init_from, settings)
        model.encoder.load_state_dict(weights, strict=False)
    parameters = sum(weight.numel() for weight in model.encoder.parameters())
    distributed.say(f"encoder: {parameters:,} parameters; {len(train):,} images")
    about = {
        "kind": "encoder",
        "objective": "diffusion",
        "model": settings,
        "tokenizer": train.tokenizer.to_json(),
        "statistics": {},
        "data": {"fingerprint": train.fingerprint},
        "flags": flags.to_dict(own),
    }
    batches = CaptionBatches(train, cfg.batch_size, cfg.accumulate, cfg.seed)
    fit.fit(
        model,
        make_loss(own, mask_id),
        batches,
        cfg,
        setup.out,
        about=about,
        eval_fn=make_eval(held_out, mask_id),
        resume=setup.resume,
    )
    if distributed.leads():
        words = sys.argv[1:] if argv is None else argv
        save_encoder(setup.out, model, settings, preprocess, words)
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
