"""The weights that a training starts from: those of another checkpoint that fit."""

from pathlib import Path

import torch.nn.functional as F

from base import config
from base.config import ModelConfig
from base.files import UserError
from base.folders import check_tokenizer
from loop import checkpoint, distributed
from loop.contracts import Checkpoint
from model import Denoiser
from net import adapters

LEAVE = "reader.leave.weight"  # of net/patch_reader.py: its rows are the features' channels


def start_from(
    model: Denoiser, path: Path | str, fingerprint: str, condition_width: int = 0
) -> Checkpoint:
    """Copy every weight that fits from another checkpoint; new parts keep their own start.

    fingerprint: of the tokenizer of `model`. condition_width: of the features alone, where `model`
    also reads how they change. If the checkpoint reads features of this width, what its matrices do
    with changes is zero: the start is the old network. Returns the rest of the other checkpoint.
    Raises UserError if its tokenizer or its width is another, or if its patch layers would be lost.
    """
    wanted: ModelConfig = model.config
    # Other noise may start from any network. A network of other noise is no start for masks.
    noises = ("absorbing",) if wanted.noise == "absorbing" else config.NOISES
    other, tokenizer, saved = checkpoint.open_model(path, noises=noises)
    check_tokenizer(tokenizer.fingerprint, fingerprint, path)
    check_shift(other.config, model.config, path)
    if other.config.d_model != wanted.d_model:
        raise UserError(
            f"{path}, a network of width {other.config.d_model}",
            f"the width of the new network, {wanted.d_model}",
            f"add --d_model {other.config.d_model}, or start from another checkpoint",
        )
    check_patches(other.config, wanted, path)
    own = model.state_dict()
    fitting = {}
    widens = other.config.condition_width == condition_width < wanted.condition_width
    for name, weight in other.state_dict().items():
        if widens and name in own and weight.ndim == 2 and weight.shape[1] == condition_width:
            more = own[name].shape[1] - condition_width
            weight = F.pad(weight, (0, max(0, more)))
        if widens and name == LEAVE and name in own:
            weight = F.pad(weight, (0, 0, 0, own[name].shape[0] - len(weight)))
        # strict=False allows missing weights, but not weights of another shape.
        if name in own and own[name].shape == weight.shape:
            fitting[name] = weight
    untrained = [name for name in own if name not in fitting and not adapters.is_own(name)]
    if adapters.is_adapted(model) and untrained:
        raise UserError(
            f"{path}, in which {untrained[0]} has no weights that fit",
            "a network of the same kind and size: --lora_rank trains none of its matrices",
            "name another with --init_from, or leave out --lora_rank",
        )
    model.load_state_dict(fitting, strict=False)  # not strict: new parts keep their start
    adapters.begin(model)
    new = len(own) - len(fitting)
    distributed.say(f"from {path}: {len(fitting)} of {len(own)} tensors; new: {new}")
    return saved


def check_patches(before: ModelConfig, wanted: ModelConfig, path: Path | str) -> None:
    """Raise UserError for a start with other patch layers than the new network, unless it has none.

    Fewer layers would lose what the others learnt, more would begin before a trained end.
    """
    if before.patch_layers not in (0, wanted.patch_layers):
        raise UserError(
            f"{path}, a network of {before.patch_layers} patch layers",
            f"as many as the new network has, {wanted.patch_layers}, or none",
            f"add --patch_layers {before.patch_layers}, or start from another checkpoint",
        )


def check_shift(start: ModelConfig, wanted: ModelConfig, path: Path | str) -> None:
    """Raise UserError unless the start's outputs stand where the network wants them.

    A twin may start any network: without a shift, its weights serve too, and learn more anew.
    """
    if not start.causal and start.logit_shift != wanted.logit_shift:
        with_or_not = "with" if start.logit_shift else "without"
        raise UserError(
            f"{path}, a network {with_or_not} a logit shift",
            "the logit shift of the new network",
            f"train {with_or_not} --logit_shift, or start from another checkpoint",
        )
