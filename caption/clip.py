"""CLIPScore and RefCLIPScore (Hessel et al. 2021, arXiv 2104.08718) with any CLIP that transformers reads (floor 1).

The captioner that reads features of the same CLIP has been taught to this test: choose another, and say which.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from base.files import UserError
from net import image_encoders

PROMPT = "A photo depicts "
WEIGHT = 2.5


class ClipScore:
    """name: a hub name or a local folder with a CLIPModel, its tokenizer and its preprocessor_config.json."""

    def __init__(self, name: str, device="cpu"):
        import transformers
        from transformers import AutoConfig, AutoTokenizer, CLIPModel

        transformers.logging.set_verbosity_error()
        try:
            if AutoConfig.from_pretrained(name).model_type != "clip":
                raise ValueError("it is no CLIP")
            self.model = CLIPModel.from_pretrained(name).to(device).eval().requires_grad_(False)
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.preprocess = image_encoders.preprocess_of(
                transformers.ImageProcessingMixin.get_image_processor_dict(name)[0]
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"no CLIP in {name} ({(str(error) or type(error).__name__).splitlines()[0]})",
                "a hub name or a local folder with a CLIPModel, its tokenizer and its preprocessing",
                "check --clip_score and the network",
            ) from error
        self.name, self.device = Path(name).name, device
        self.mean, self.std = (
            torch.tensor(v, device=device).view(1, 3, 1, 1)
            for v in (self.preprocess.mean, self.preprocess.std)
        )

    @torch.no_grad()
    def image_vectors(self, sources: list, batch_size: int = 64) -> Tensor:
        """Pictures (paths, or open) to (N, D) of length 1."""
        parts = []
        for first in range(0, len(sources), batch_size):
            pixels = np.stack(
                [self.preprocess(source) for source in sources[first : first + batch_size]]
            )
            x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255
            pooled = self.model.vision_model(pixel_values=(x - self.mean) / self.std).pooler_output
            parts.append(self.model.visual_projection(pooled).float())
        return torch.nn.functional.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def text_vectors(self, texts: list[str], batch_size: int = 256) -> Tensor:
        """Captions, each with the prompt before it, cut to the length that CLIP reads: (N, D) of length 1."""
        parts = []
        for first in range(0, len(texts), batch_size):
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
            parts.append(self.model.text_projection(pooled).float())
        return torch.nn.functional.normalize(torch.cat(parts), dim=-1)

    def each(
        self, sources: list, texts: list[str], references: list[list[str]]
    ) -> dict[str, np.ndarray]:
        """clip_score: 2.5 · max(cos(image, caption), 0). ref_clip_score: its harmonic mean with the largest max(cos(caption, reference), 0)."""
        images, ours = self.image_vectors(sources), self.text_vectors(texts)
        score = WEIGHT * (images * ours).sum(-1).clamp(min=0)
        theirs = self.text_vectors([text for refs in references for text in refs])
        owner = torch.tensor(
            [i for i, refs in enumerate(references) for _ in refs], device=theirs.device
        )
        likeness = torch.zeros_like(score).scatter_reduce(
            0, owner, (ours[owner] * theirs).sum(-1), "amax"
        )  # the zeros are the max(…, 0)
        mean = 2 * score * likeness / (score + likeness).clamp(min=1e-12)
        return {
            "clip_score": score.double().cpu().numpy(),
            "ref_clip_score": mean.double().cpu().numpy(),
        }
