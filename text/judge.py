"""The judge of stories: a text twin says how likely a text is, in nats per token.

The judge counts its own tokens. If the model that wrote the texts has another tokenizer, the judge
reads the letters of the texts. So one judge compares models of different vocabularies.
"""

import numpy as np
import torch

from base.files import UserError
from base.tokenizer import Tokenizer
from loop import checkpoint
from net import twin

AT_ONCE = 16  # texts per batch


def check_twin(path: str, saved: dict) -> None:
    """Raise UserError unless a checkpoint is autoregressive."""
    if saved["objective"] != "ar":
        raise UserError(
            f"{path} trained with --objective {saved['objective']}",
            "an autoregressive twin",
            "train one with --objective ar",
        )


def open_judge(path: str, device) -> "Judge":
    """The text twin that judges samples. Raises UserError if the checkpoint is no twin of texts."""
    model, tokenizer, saved = checkpoint.open_model(path, device, kinds=("text",))
    check_twin(path, saved)
    return Judge(model, tokenizer)


class Judge:
    """A twin and its tokenizer."""

    def __init__(self, model: torch.nn.Module, tokenizer: Tokenizer):
        self.model = model
        self.tokenizer = tokenizer

    def read(self, ids: np.ndarray, writer: Tokenizer) -> np.ndarray:
        """A text (L,) of the writer's tokens, with its [BOS], as the judge's tokens.

        [EOS] stays if the text ends with it. A text longer than the judge's rows is cut.
        """
        own = self.tokenizer
        if writer.fingerprint == own.fingerprint:
            return ids
        end = [own.eos] if ids[-1] == writer.eos else []
        read = [own.bos, *own.encode(writer.decode(ids)), *end]
        return np.array(read[: self.model.config.max_length])

    def nats_per_token(self, texts: list[np.ndarray], writer: Tokenizer) -> float:
        """Mean nats per token of texts under the judge, each given its [BOS].

        texts: ids of the writer's tokenizer, each with [BOS]. A low figure alone proves little:
        dull, repeated text is likely too. So tables show entropy and repetition as well.
        """
        read = [self.read(ids, writer) for ids in texts]
        nats = count = 0.0
        for first in range(0, len(read), AT_ONCE):
            tokens, free = self.batch(read[first : first + AT_ONCE])
            nats += float(twin.likelihoods(self.model, tokens, free).sum())
            count += int(free.sum())
        return nats / count

    def batch(self, texts: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Texts as padded rows (B, L) of ids, and which of them are predicted (B, L)."""
        device = self.model.device
        lengths = torch.tensor([len(ids) for ids in texts], device=device)
        size = (len(texts), int(lengths.max()))
        tokens = torch.full(size, self.tokenizer.pad, device=device)
        for row, ids in zip(tokens, texts, strict=True):
            row[: len(ids)] = torch.as_tensor(ids.astype(np.int64))
        free = torch.arange(size[1], device=device) < lengths[:, None]
        # [BOS] is given, never predicted.
        free[:, 0] = False
        return tokens, free
