"""Train the small image encoder that ships in assets/: a convolutional tower, on synthetic scenes, as CLIP and CoCa are.

Reads   a folder from prep_caption_synthetic.py --encoder none (its train split, val to score)
Writes  runs/encoder/ (--out): best.pt, resume.pt, log.jsonl, and scene_encoder.safetensors

A few minutes on a laptop, to see it work:
    python prep_caption_synthetic.py --out data_encoder --num_train 2000 --num_val 200 --encoder none
    python train_encoder.py --data_dir data_encoder --max_steps 300
What made assets/scene_encoder.safetensors is in that file's metadata and in LOG.md.

Losses, summed: captioning by masked diffusion through cross-attention to the patches (as CoCa's, arXiv
2205.01917, with our own objective in place of left-to-right), contrastive between image and caption (CLIP, arXiv
2103.00020), and, because an hour of CPU is short, what each patch shows: size, fill, colour and shape of the object
over its centre. Half of the pictures are shown in exchanged colours and teach only what has no colour: else shape is
read off the colour that it came with, and pairs never seen are misread. Pairs, relations and counts held out of the
train split are held out of the encoder too.
"""

import shlex
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

import caption_data
import checkpoint
import config
import data
import diffusion
import distributed
import files
import scenes
import training
import vision
from caption_data import CaptionBatches
from config import ModelConfig, TrainConfig
from data import place
from files import UserError
from model import Denoiser
from tokenizer import Tokenizer

CLASSES = {"size": scenes.SIZES, "fill": scenes.FILLS, "colour": scenes.COLOURS, "shape": scenes.SHAPES}
STRIDE = 16  # pixels of the input to one patch
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
DEFAULTS = {"max_steps": 4000, "batch_size": 64, "optimizer": "adamw", "learning_rate": 2e-3, "warmup_steps": 60, "final_learning_rate": 0.02,
            "weight_decay": 0.05, "ema": 0.99, "eval_every": 250, "save_every": 250}


def parse_args(argv):
    parser = config.Parser(__doc__)
    parser.add_argument("--data_dir", default="data_encoder", help="folder from prep_caption_synthetic.py (default %(default)s)")
    parser.add_argument("--out", default="runs/encoder", help="run folder (default %(default)s)")
    parser.add_argument("--width", type=int, default=176, help="channels of the last stage; the first two have a quarter and a half (default 176)")
    parser.add_argument("--image_size", type=int, default=128, help="side of its input in pixels, 16 times the grid's side (default 128)")
    parser.add_argument("--patch_weight", type=float, default=1.0, help="weight of the loss on patches (default 1)")
    parser.add_argument("--contrastive_weight", type=float, default=0.1, help="weight of the contrastive loss (default 0.1)")
    parser.add_argument("--recolour", type=float, default=0.5, help="share of pictures with exchanged colours: they teach shape alone (default 0.5)")
    parser.add_argument("--init_from", help="start from this encoder (*.safetensors) of the same width")
    parser.add_argument("--resume", nargs="?", const="must", choices=("must", "auto"),
                        help="go on from resume.pt in --out; auto: if there is one, else begin (for torchrun --max-restarts)")
    parser.add_settings(TrainConfig, **DEFAULTS)
    return parser.parse_args(argv)


class Pixels:
    """The train or val pictures as the encoder sees them, decoded once: what CaptionBatches batches.

    pixels: (N, size, size, 3) uint8, memory-mapped. targets: (N, P, 4) int64, class of each attribute at a patch, -1 for none.
    weights: (N, P) float32, of each patch in the loss.
    """

    def __init__(self, folder, split: str, preprocess: vision.Preprocess):
        self.records = [record for record in caption_data.read_records(folder) if record["split"] == split]
        self.tokenizer = Tokenizer.from_json((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
        path = Path(folder) / f"pixels_{split}_{preprocess.size}_{caption_data.read_meta(folder)['fingerprint']}.npy"
        sums = path.with_suffix(".checksums.npy")
        if not (path.exists() and sums.exists()):
            found = []
            with files.replacing(path) as file, ProcessPoolExecutor() as pool:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False,
                                                            "shape": (len(self.records), preprocess.size, preprocess.size, 3)})
                paths = [caption_data.image_path(folder, record) for record in self.records]
                for image in tqdm(pool.map(partial(vision.read_pixels, preprocess), paths, chunksize=32), total=len(paths), desc="decoding"):
                    file.write(image.tobytes())
                    found.append(caption_data.row_checksums(image[None]))
            with files.replacing(sums) as file:
                np.save(file, np.concatenate(found))
        self.pixels = caption_data.Features(path, data.open_array(path, "remove it"), data.open_array(sums, "remove it"))
        classes = [patch_classes(record["scene"], preprocess.size // STRIDE) for record in self.records]
        self.targets, self.weights = (np.stack(parts) for parts in zip(*classes, strict=True))
        flat = self.tokenizer.encode_batch([caption for record in self.records for caption in record["captions"]])
        ids = iter(torch.tensor([self.tokenizer.bos, *(int(i) for i in one), self.tokenizer.eos]) for one in flat)
        self.tokens = [[next(ids) for _ in record["captions"]] for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def batch(self, numbers, which) -> dict:
        tokens = [self.tokens[n][w] for n, (w,) in zip(numbers, which, strict=True)]
        rows = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=self.tokenizer.pad)
        order = np.asarray(numbers)
        return {"tokens": rows, "lengths": torch.tensor([len(one) for one in tokens]), "weight": float(len(tokens)),
                "pixels": torch.from_numpy(self.pixels[order]), "targets": torch.from_numpy(self.targets[order]),
                "patch_weights": torch.from_numpy(self.weights[order])}


def patch_classes(scene: dict, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Size, fill, colour and shape over each patch's centre, the topmost object's, -1 for background: (grid², 4) int64; and
    the patches' weights (grid²,) float32: every object weighs 5 in all, however few its patches, and background 0.2 a patch.

    With equal patches the small object inside a large one was 0.2% of the loss, and badly learnt (LOG.md).
    """
    y, x = np.divmod(np.arange(grid * grid), grid)
    x, y = (x + 0.5) / grid, (y + 0.5) / grid
    result, owner = np.full((grid * grid, 4), -1), np.full(grid * grid, -1)
    for number, one in enumerate(scene["objects"]):
        near = np.hypot(x - one["x"], y - one["y"]) < max(0.8 * one["radius"], 0.55 / grid)
        result[near], owner[near] = [names.index(one[name]) for name, names in CLASSES.items()], number
    patches = np.bincount(owner + 1, minlength=len(scene["objects"]) + 1)
    return result, np.where(owner < 0, 0.2, 5 / patches[owner + 1]).astype(np.float32)


def recolour(pixels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """The same pictures with their channels in another order, or inverted, or both: (B, size, size, 3) uint8 in and out."""
    pixels = pixels[..., torch.randperm(3, generator=rng)]
    return 255 - pixels if torch.rand((), generator=rng) < 0.5 else pixels


class Pretraining(nn.Module):
    """The encoder and what teaches it: a captioner with cross-attention, a text tower, four heads on the patches."""

    def __init__(self, settings: dict, tokenizer: Tokenizer, longest: int):
        super().__init__()
        D = settings["hidden_sizes"][-1] + 16
        self.encoder = vision.vision_model(settings)
        shape = dict(vocab_size=tokenizer.vocab_size, output_size=tokenizer.output_size, max_length=longest, d_model=D, heads=4)
        self.captioner = Denoiser(ModelConfig(**shape, layers=3, condition_width=D))
        self.captioner.length_head = None  # nothing here asks how long a caption will be
        self.text = Denoiser(ModelConfig(**shape, layers=2))
        self.heads = nn.ModuleDict({name: nn.Linear(D, len(names) + 1) for name, names in CLASSES.items()})
        self.image_out, self.text_out, self.scale = nn.Linear(D, 128, bias=False), nn.Linear(D, 128, bias=False), nn.Parameter(torch.tensor([2.3]))
        for block in self.captioner.blocks:
            nn.init.ones_(block.cross.gate)  # trained together from the start, so the gate need not be the identity

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

    def losses(self, batch: dict, rng, mask_id: int, recoloured: int = 0) -> dict[str, torch.Tensor]:
        """The three losses, and the heads' accuracy over objects. The last `recoloured` pictures are shown in other colours: they have no
        true caption, and no loss on colour."""
        tokens, lengths, free = place(batch, self.device)
        n = len(tokens) - recoloured
        pixels = torch.cat([batch["pixels"][:n], recolour(batch["pixels"][n:], rng)]) if recoloured else batch["pixels"]
        seen = self.patches(pixels)  # (B, P, D)
        tokens, lengths, free = tokens[:n], lengths[:n], free[:n]
        denoise = self.captioner.bind(lengths, self.captioner.keys_values(seen[:n]))
        caption, _ = diffusion.loss(denoise, tokens, free, mask_id=mask_id, rng=rng)
        word = self.text.trunk(tokens, lengths, None, None, None) * free[..., None]
        image, text = self.image_out(seen[:n].mean(1)), self.text_out(word.sum(1) / free.sum(1, keepdim=True))
        match = self.scale.clamp(max=4.6).exp() * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T  # (n, n)
        right = torch.arange(n, device=self.device)
        targets, weights = batch["targets"].to(self.device), batch["patch_weights"].to(self.device)
        patch, hits = 0.0, {}
        for i, (name, head) in enumerate(self.heads.items()):
            shown = n if name == "colour" else len(seen)
            logits, target = head(seen[:shown]).float(), targets[:shown, :, i]
            weight = weights[:shown].flatten()
            classes = torch.where(target < 0, logits.shape[-1] - 1, target)
            patch = patch + (F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none") * weight).sum() / weight.sum() / 4
            hits[f"{name}_accuracy"] = ((logits.argmax(-1) == classes) * weights[:shown])[target >= 0].sum() / weights[:shown][target >= 0].sum()
        return {"caption": caption, "contrastive": 0.5 * (F.cross_entropy(match, right) + F.cross_entropy(match.T, right)), "patch": patch, **hits}


def main(argv=None):
    args = parse_args(argv)
    if args.image_size < 32 or args.image_size % STRIDE or args.width < 16 or args.width % 16:
        raise UserError(f"--image_size {args.image_size} --width {args.width}", "multiples of 16, of at least 32 and 16", "choose other sizes")
    if not 0 <= args.recolour < 1:
        raise UserError(f"--recolour {args.recolour}", "a share of at least 0 and below 1", "for example 0.5")
    out = Path(args.out)
    distributed.start()
    resume = training.find_resume(out, args.resume, ("encoder",))
    cfg = config.resolve(TrainConfig, args, DEFAULTS, resume["train"] if resume else {})
    distributed.claim(out)
    training.start(cfg)
    settings = {"embedding_size": 32, "hidden_sizes": [args.width // 4, args.width // 2, args.width], "depths": [1, 2, 3], "layer_type": "basic"}
    preprocess = vision.Preprocess(args.image_size, "squash", MEAN, STD)
    with distributed.leader_first():  # the pictures are decoded once
        data, held_out = (Pixels(args.data_dir, split, preprocess) for split in ("train", "val"))
    mask_id, longest = data.tokenizer.mask, max(len(one) for part in (data, held_out) for captions in part.tokens for one in captions)
    model = Pretraining(settings, data.tokenizer, longest)
    if args.init_from and not resume:
        model.encoder.load_state_dict(vision.read_weights(args.init_from, settings)[0], strict=False)
    distributed.say(f"encoder: {sum(w.numel() for w in model.encoder.parameters()):,} parameters; {len(data):,} pictures")

    def loss_fn(model, batch, rng):
        losses = model.losses(batch, rng, mask_id, int(args.recolour * len(batch["tokens"])))
        total = losses["caption"] + args.contrastive_weight * losses["contrastive"] + args.patch_weight * losses["patch"]
        return total, {name: value.item() for name, value in losses.items()}

    @torch.no_grad()
    def eval_fn(model):
        rng, sums = torch.Generator().manual_seed(0), {}
        for first in range(0, len(held_out), 50):
            numbers = np.arange(first, min(first + 50, len(held_out)))
            for name, value in model.losses(held_out.batch(numbers, [[0]] * len(numbers)), rng, mask_id).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(numbers) / len(held_out)
        return sums

    about = {"kind": "encoder", "objective": "diffusion", "model": settings, "tokenizer": data.tokenizer.to_json(), "statistics": {}, "data": {}}
    batches = CaptionBatches(data, cfg.batch_size, cfg.accumulate, cfg.seed)
    training.fit(model, loss_fn, batches, cfg, out, about=about, eval_fn=eval_fn, resume=resume)
    if distributed.leads():
        model.load_state_dict(checkpoint.load(out / "best.pt", kinds=("encoder",))["averaged"])
        command = shlex.join(["python", "train_encoder.py", *(sys.argv[1:] if argv is None else argv)])
        vision.save_embedded(out / "scene_encoder.safetensors", model.encoder, settings, preprocess, command)
        print(f"done: {out / 'scene_encoder.safetensors'}; SHA-256 {files.file_digest(out / 'scene_encoder.safetensors').hex()[:16]}")
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
