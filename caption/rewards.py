"""Training on the score itself: CIDEr-D as a reward, self-critical, in one denoiser call (floor 2).

Self-critical sequence training (Rennie et al. 2017, arXiv 1612.00563, eq. 8) weighs the log-probability of a drawn
caption with how much better it scores than the greedy one. A masked denoiser gives both at once: the tokens drawn and
the likeliest tokens of the same logits, put into the same partly masked caption.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion
from caption import coco


class Reward:
    """CIDEr-D against an image's training captions, document frequencies those of the training set."""

    def __init__(self, captions: list[list[str]]):
        words = [[coco.tokenize(text) for text in texts] for texts in captions]
        self.cider = coco.CiderD(words)
        self.vectors = [[self.cider.vectors(one) for one in texts] for texts in words]

    def __call__(self, text: str, image: int, without: int) -> float:
        """0 to 10. Caption number `without` is no reference, for it is what the text was made from; unless it is the only one."""
        others = [one for number, one in enumerate(self.vectors[image]) if number != without]
        return self.cider.score(coco.tokenize(text), others or self.vectors[image])


def loss(
    denoise,
    tokens: Tensor,
    free: Tensor,
    sources: list[tuple[int, int]],
    reward: Reward,
    tokenizer,
    *,
    uniform: Tensor,
    rng: torch.Generator,
    share: float,
    estimator: str = "count",
    weight: str = "bound",
) -> tuple[Tensor, dict]:
    """`diffusion.loss`, plus `share` times the self-critical loss, of one corruption and one call.

    tokens (B, L), free (B, L) bool; sources: image and caption number of each row. uniform: (B,) noise levels. estimator, weight: as in
    `diffusion.loss`. Returns the mean loss and floats: the bound (`nats_per_token`), `masked_cross_entropy`, `reward` of what was drawn
    and `greedy_reward`, CIDEr-D from 0 to 10.
    """
    drawn = diffusion.corrupt(free, uniform, rng, estimator)
    log_p = denoise(
        tokens.masked_fill(drawn.masked, tokenizer.mask), drawn.share, drawn.masked
    ).log_softmax(-1)  # (M, V')
    row = drawn.masked.nonzero()[:, 0]
    nats = F.nll_loss(log_p, tokens[drawn.masked], reduction="none")
    value, stats = diffusion.weigh(nats, drawn.weight[row].float(), free.sum(), weight)
    with torch.no_grad():
        # Gumbel's argmax in float64 with the step's own generator: a resumed run draws the same.
        noise = (
            -torch.empty(log_p.shape, dtype=torch.float64)
            .exponential_(generator=rng)
            .log()
            .to(log_p.device)
        )
        guesses = (log_p.double() + noise).argmax(-1), log_p.argmax(-1)
        scores = []
        for guess in guesses:
            filled = tokens.clone()
            filled[drawn.masked] = guess
            scores.append(
                [
                    reward(tokenizer.decode(ids), *source)
                    for ids, source in zip(filled.tolist(), sources, strict=True)
                ]
            )
        gain = torch.tensor(np.subtract(*scores), dtype=torch.float32, device=tokens.device)  # (B,)
    critical = -(gain[row] * log_p.gather(1, guesses[0][:, None])[:, 0]).sum() / free.sum()
    means = {
        name: float(np.mean(values))
        for name, values in zip(("reward", "greedy_reward"), scores, strict=True)
    }
    return value + share * critical, {**stats, **means}
