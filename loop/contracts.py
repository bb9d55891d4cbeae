"""Types: what the loop asks of models, tokenizers and losses, and what a checkpoint holds."""

from collections.abc import Callable
from typing import Any, Protocol, TypedDict

import torch
from torch import Tensor

# loss_fn(model, batch, rng) -> (mean loss per unit of batch["weight"], {"name": figure to log}).
LossFn = Callable[[Any, dict, torch.Generator], tuple[Tensor, dict[str, float]]]
# eval_fn(model) -> {"name": figure}; the first figure decides which weights are best.pt.
EvalFn = Callable[[Any], dict[str, float]]
# preview_fn(model) -> a text to read, such as two samples.
PreviewFn = Callable[[Any], str]


class Tokenizer(Protocol):
    """What a checkpoint stores of base.tokenizer.Tokenizer."""

    @property
    def fingerprint(self) -> str: ...

    def to_json(self) -> str: ...


class Data(Protocol):
    """A split of a data folder: its meta.json, and the tokenizer of its tokens."""

    @property
    def meta(self) -> dict: ...

    @property
    def tokenizer(self) -> Tokenizer: ...


class Checkpoint(TypedDict, total=False):
    """The content of a *.pt file; loop/checkpoint.py says what each key means."""

    format: int
    kind: str
    objective: str
    model: dict[str, Any]
    weights: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    tokenizer: str
    statistics: dict[str, Any]
    encoder: dict[str, Any]
    form: str
    encoder_layers: int
    free_lengths: bool
    flags: dict[str, Any]
    both_stages: dict[str, Any]
    data: dict[str, str]
    train: dict[str, Any]
    step: int
    seed: int
    git: str
    metrics: dict[str, float]
    checksums: dict[str, str]
    # resume.pt only:
    optimizer: list[dict[str, Any]]
    best: float
    tokens_seen: int
    skipped: int
    no_better: int
    shards: str
    shard_files: dict[str, dict]
