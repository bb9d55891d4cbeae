"""A model of dialogues while it trains: its loss, its score on val, and dialogues to read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from base import config, flags
from base.config import SampleConfig
from base.flags import setting
from caption import dialogue_writer, writer
from caption.dialogue import DialogueData
from caption.dialogue_writer import Answerer
from net import blocks, turns, twin

EVAL_BATCH = 25  # dialogues scored at one time
EVAL_DRAWS = 4  # noise levels per answer at an evaluation
PREVIEWS = 3  # dialogues in a file of samples/


@dataclass
class DialogueRun:
    """The loss and its evaluation. A resumed run keeps these."""

    objective: str = setting(
        "diffusion", "what to train; ar is the autoregressive twin", choices=config.OBJECTIVES
    )
    weight: str = setting(
        "bound", "weights of the loss; bound is the likelihood's own", choices=config.WEIGHTS
    )
    image_dropout: float = setting(
        0.1,
        "share of dialogues trained without their image: the blind control",
        at_least=0,
        below=1,
    )
    question_share: float = setting(
        0.0, "share of dialogues that learn their questions too", at_least=0, at_most=1
    )
    eval_dialogues: int = setting(100, "val dialogues at each evaluation", at_least=1)

    def __post_init__(self):
        flags.check(self)


def make_loss(own: DialogueRun, tokenizer, statistics: dict):
    """loss_fn for `fit`: nats per free token, given the image and the turns before."""

    def loss_fn(model, batch, rng):
        tokens, free, turn = on_device(batch, model.device)
        features = writer.standardise(batch["features"], statistics, model.device)
        kept = torch.rand(len(features), generator=rng) >= own.image_dropout
        # Zeros are what a blind model sees when answers are written.
        features = features * kept.to(model.device)[:, None, None]
        condition = model.keys_values(features)
        if own.objective == "ar":
            return twin.loss(model, tokens, free, condition)
        return turns.loss(
            turns.bind(model, turn, condition),
            tokens,
            free,
            turn,
            mask_id=tokenizer.mask,
            rng=rng,
            weight=own.weight,
            uniform=batch["uniform"].flatten(),
        )

    return loss_fn


def on_device(batch: dict, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """tokens (B, L) int64, free (B, L) bool, turn (B, L) int64 of a batch, on its device."""
    tokens, free, turn = (batch[name].to(device) for name in ("tokens", "free", "turn"))
    return tokens, free, turn


def statistics_of(data: DialogueData, before) -> dict:
    """What a reader must know of the training data. before: the checkpoint it started from.

    slot: the tokens of an answer's slot. looks: the looks before the questions. notes,
    values_in_notes: whether it has notes, and whether they begin with a value. The others are those
    of a captioner's features.
    """
    statistics = writer.feature_statistics(data.features, data.rows)
    statistics["slot"], statistics["looks"] = data.slot, data.looks
    statistics["notes"], statistics["values_in_notes"] = data.notes, data.values
    if before and before["kind"] in ("caption", "dialogue"):
        statistics["place_scale"] = before["statistics"].get("place_scale", 1.0)
    return statistics


def batches_to_score(
    model, data: DialogueData, numbers: np.ndarray, statistics: dict
) -> Iterator[tuple[np.ndarray, tuple, list]]:
    """The dialogues `numbers` in parts: their numbers, `on_device` of them, and their condition."""
    for part in np.array_split(numbers, -(-len(numbers) // EVAL_BATCH)):
        batch = data.dialogues(part)
        features = writer.standardise(batch["features"], statistics, model.device)
        yield part, on_device(batch, model.device), model.keys_values(features)


def make_eval(own: DialogueRun, held_out: DialogueData, statistics: dict):
    """eval_fn for `fit`: nats per token of val's answers, and the share of right answers.

    right_at_once: answers that are right if all their tokens are the likeliest, in a single call
    with all of them masked, behind true turns. For the twin, the likeliest behind the true tokens:
    its greedy answer. looks_right_at_once: the same of the looks, if there are any.
    """
    numbers = np.arange(min(own.eval_dialogues, len(held_out)))
    mask_id = held_out.tokenizer.mask

    @torch.no_grad()
    def eval_fn(model):
        nats, tokens_scored, right = 0.0, 0.0, []
        for part, (tokens, free, turn), condition in batches_to_score(
            model, held_out, numbers, statistics
        ):
            if own.objective == "ar":
                each, hits = twin.token_losses(model, tokens, free, condition)
                nats += float(each.sum())
            else:
                # The same noise at every evaluation: two steps then differ by their weights alone.
                rng = torch.Generator().manual_seed(int(part[0]))
                denoise = turns.bind(model, turn, condition)
                draws = turns.bound_estimates(
                    denoise, tokens, free, turn, mask_id=mask_id, rng=rng, draws=EVAL_DRAWS
                )
                nats += float(sum(draw["nats"].sum() for draw in draws)) / EVAL_DRAWS
                _, hits = blocks.masked_losses(denoise, tokens, free, mask_id)
            tokens_scored += float(free.sum())
            right.append(right_answers(hits, held_out))
        return {"nats_per_token": nats / tokens_scored, **shares(torch.cat(right), held_out.looks)}

    return eval_fn


def right_answers(hits: Tensor, data: DialogueData) -> Tensor:
    """Which slots have no wrong token: (B, T) bool. hits: (M,) bool of all slots of B dialogues."""
    # In row-major order the tokens of a slot are neighbours.
    return hits.view(-1, data.num_turns, data.slot).all(2)


def shares(right: Tensor, looks: int) -> dict[str, float]:
    """The shares of right answers, and of right looks. right: (B, T) bool; the looks are first."""
    result = {"right_at_once": float(right[:, looks:].float().mean())}
    if looks:
        result["looks_right_at_once"] = float(right[:, :looks].float().mean())
    return result


def make_preview(own: DialogueRun, seed: int, held_out: DialogueData, statistics: dict):
    """preview_fn for `fit`: val's first dialogues with own answers, next to the true answers."""
    numbers = np.arange(min(PREVIEWS, own.eval_dialogues, len(held_out)))

    def preview_fn(model):
        features = writer.standardise(held_out.features_of(numbers), statistics, model.device)
        answerer = Answerer(model, held_out.tokenizer, own.objective, held_out.slot, held_out.looks)
        turns = [held_out.turns[number] for number in numbers]
        asked = [[turn["question"] for turn in row[held_out.looks :]] for row in turns]
        settings = SampleConfig(**config.CAPTIONS)
        noted = dialogue_writer.look_all(answerer, features, settings, seed=seed)
        written = dialogue_writer.answer_all(answerer, features, asked, settings, seed=seed)
        lines = []
        for number, row, first, rest in zip(numbers, turns, noted, written, strict=True):
            lines.append(held_out.records[number]["image"])
            for turn, answer in zip(row, first + rest, strict=True):
                lines.append(f"  {turn['question']} {answer.text}   | {turn['answer']}")
        return "\n".join(lines)

    return preview_fn
