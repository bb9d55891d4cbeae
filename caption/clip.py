"""CLIPScore and RefCLIPScore (Hessel et al. 2021, arXiv 2104.08718) with any CLIP of transformers.

A captioner that reads features of the same CLIP was trained towards this test. Choose another CLIP
as the judge, and name it.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from base.files import UserError
from loop import progress
from net import image_encoders, pretrained

PROMPT = "A photo depicts "  # put before every caption, as in section 3 of the paper
WEIGHT = 2.5  # the paper's w, which stretches the score to about 0 to 1


class ClipScore:
    """A CLIP as a judge of captions.

    name: a hub name, or a local folder with a CLIPModel, its tokenizer and its
    preprocessor_config.json. Raises UserError if it is none.
    """

    def __init__(self, name: str, device="cpu"):
        self.name, self.device = Path(name).name, device
        do = "check --clip_score and the network"
        with pretrained.reading(name, "CLIP in", do):
            kind = pretrained.kind_of(name)
            if kind != "clip":
                raise ValueError(f"it is no CLIP, but {kind!r}")
            model = pretrained.load_model("CLIPModel", name)
            self.model = model.to(device).eval().requires_grad_(False)
            self.tokenizer = pretrained.load_tokenizer(name)
            said = pretrained.image_file(name)
        self.preprocess = image_encoders.preprocess_of(said, kind)
        self.mean = torch.tensor(self.preprocess.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(self.preprocess.std, device=device).view(1, 3, 1, 1)
        self.check()

    def check(self) -> None:
        """Judge a first image and a first text. Raises UserError if the parts do not fit."""
        tokens, known = len(self.tokenizer), self.model.config.text_config.vocab_size
        try:
            if tokens > known:
                raise ValueError(f"its tokenizer has {tokens} tokens, its network {known}")
            self.image_vectors([Image.new("RGB", (8, 8))])
            self.text_vectors(["a"])
        except ValueError as error:
            raise UserError(
                f"the CLIP {self.name}, whose parts do not fit ({error})",
                "tokenizer, preprocessing and network of one model",
                "get the model's own files",
            ) from error

    @torch.no_grad()
    def image_vectors(self, sources: list, batch_size: int = 64) -> Tensor:
        """Images (paths, or open) to vectors of length 1: (N, D) float32."""
        vectors = []
        for first in progress.bar(range(0, len(sources), batch_size), "CLIP, images", "batch"):
            batch = sources[first : first + batch_size]
            pixels = np.stack([self.preprocess(source) for source in batch])  # (B, S, S, 3) uint8
            x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255
            x = (x - self.mean) / self.std  # (B, 3, S, S)
            pooled = self.model.vision_model(pixel_values=x).pooler_output
            vectors.append(self.model.visual_projection(pooled).float())
        return F.normalize(torch.cat(vectors), dim=-1)

    @torch.no_grad()
    def text_vectors(self, texts: list[str], batch_size: int = 256) -> Tensor:
        """Captions, each after the prompt and cut to CLIP's length, to vectors of length 1: (N,
        D)."""
        vectors = []
        for first in progress.bar(range(0, len(texts), batch_size), "CLIP, texts", "batch"):
            words = self.tokenizer(
                [PROMPT + text for text in texts[first : first + batch_size]],
                padding=True,
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.device)
            pooled = self.model.text_model(
                input_ids=words["input_ids"], attention_mask=words["attention_mask"]
            ).pooler_output
            vectors.append(self.model.text_projection(pooled).float())
        return F.normalize(torch.cat(vectors), dim=-1)

    def each(
        self, sources: list, texts: list[str], references: list[list[str]]
    ) -> dict[str, np.ndarray]:
        """The two scores of each caption: (N,) float64 each.

        clip_score: 2.5 · max(cos(image, caption), 0). ref_clip_score: the harmonic mean of it and
        the largest max(cos(caption, reference), 0) of the image's references.
        """
        images, captions = self.image_vectors(sources), self.text_vectors(texts)  # (N, D)
        score = WEIGHT * (images * captions).sum(-1).clamp(min=0)
        every = self.text_vectors([text for refs in references for text in refs])  # (R, D)
        owners = [i for i, refs in enumerate(references) for _ in refs]
        owner = torch.tensor(owners, device=every.device)  # (R,) the caption of each reference
        cosine = (captions[owner] * every).sum(-1)
        # The zeros that are scattered into are the max(..., 0) of the formula.
        likeness = torch.zeros_like(score).scatter_reduce(0, owner, cosine, "amax")
        mean = 2 * score * likeness / (score + likeness).clamp(min=1e-12)
        return {
            "clip_score": score.double().cpu().numpy(),
            "ref_clip_score": mean.double().cpu().numpy(),
        }
