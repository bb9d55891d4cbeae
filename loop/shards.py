"""The state of a run whose weights are split over processes, through torch.distributed.checkpoint.

    resume.pt        everything but the tensors; `shards`, the folder's name; `shard_files`, size
    and SHA-256
                     of each file in it. Renaming resume.pt into place is the moment of saving
    resume_STEP/     .metadata, and a file per process: weights/NAME, averaged/NAME,
                     optimizer/NUMBER/PARAMETER/NAME

The state loads again on any number of processes, split or whole. A folder's .metadata is a pickle,
the only form that torch has. It is read with nothing allowed but the classes that describe tensors.
"""

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.tensor import DTensor

from base import files
from base.files import UserError
from loop.contracts import Checkpoint
from loop.distributed import shared, split_like, split_weights

FOLDER = re.compile(r"resume_\d+")
AGAIN = "copy it again, or begin a run from last.pt with --init_from"
DESCRIBE_TENSORS = {  # every class that an honest .metadata names
    "torch.distributed.checkpoint.metadata": {
        "Metadata",
        "TensorStorageMetadata",
        "TensorProperties",
        "ChunkStorageMetadata",
        "MetadataIndex",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {
        "Size",
        *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
    },
    "pathlib": {"PosixPath", "WindowsPath"},
}
# What torch raises when it reads a damaged folder.
DAMAGE = (
    pickle.UnpicklingError,
    CheckpointException,
    OSError,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
    AttributeError,
    IndexError,
)


class Reader(dcp.FileSystemReader):
    """torch's reader, but it does not trust whoever wrote the folder."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        # torch's own reader would load any class that the pickle names.
        with open(Path(self.path) / ".metadata", "rb") as file:
            metadata = Descriptions(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class Descriptions(pickle.Unpickler):
    """Reads a pickle of descriptions of tensors, and of nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in DESCRIBE_TENSORS.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} describes no tensor")
        return super().find_class(module, name)


def save(
    run_dir: Path,
    step: int,
    weights: dict[str, Tensor],
    averaged: dict[str, Tensor] | None,
    optimizers: list[dict],
) -> Checkpoint:
    """Write resume_STEP/, all processes together; return the rest of resume.pt.

    optimizers: their state dicts.
    """
    tensors = {f"weights/{name}": value for name, value in weights.items()}
    for name, value in (averaged or {}).items():
        tensors[f"averaged/{name}"] = value
    for number, state in enumerate(optimizers):
        for index, values in state["state"].items():
            for name, value in values.items():
                tensors[f"optimizer/{number}/{index}/{name}"] = value
    # A new folder per step: the old state is whole until resume.pt names the new one.
    folder = run_dir / f"resume_{step:06d}"
    dcp.save(tensors, storage_writer=dcp.FileSystemWriter(folder))
    # dcp.save returns after all processes have written, so all files are here.
    names = sorted(path.name for path in folder.iterdir())
    table: dict[str, dict] = {}
    for entry in shared(names, lambda name: files.listed(folder, [name])):
        table |= entry
    return {
        "weights": None,  # type: ignore[typeddict-item]
        "averaged": None,
        # Only tensors go into the folder. Plain values stay in resume.pt.
        "optimizer": [{"state": {}, "param_groups": state["param_groups"]} for state in optimizers],
        "shards": folder.name,
        "shard_files": table,
    }


def remove_others(run_dir: Path, keep: str | None) -> None:
    """Remove the folders of earlier steps."""
    for path in run_dir.glob("resume_*"):  # the name is checked again: a user may have others
        if path.name != keep and FOLDER.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path)


def whole_or_split(
    resume: Checkpoint, run_dir: Path, model: nn.Module, optimizers: list
) -> Checkpoint:
    """The content of a resume.pt with its tensors, split as `model` is, however it was saved."""
    if resume.get("shards"):
        return resume | read(run_dir, resume, model, optimizers)
    like = model.state_dict()
    if not any(isinstance(value, DTensor) for value in like.values()):
        return resume
    states = []
    for optimizer, state in zip(optimizers, resume["optimizer"], strict=False):
        states.append(split_state(optimizer, state))
    averaged = resume["averaged"]
    return {
        **resume,
        "weights": split_weights(resume["weights"], like),
        "averaged": averaged and split_weights(averaged, like),
        # An optimizer too many stays as it is: `Run` refuses it by name.
        "optimizer": states + resume["optimizer"][len(states) :],
    }


def split_state(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    """A whole state dict of an optimizer, with its tensors split as their weights are."""
    split: dict[int, dict] = {}
    for index, weight in enumerate(parameters(optimizer)):
        if index not in state["state"]:
            continue  # a weight that had no gradient yet
        split[index] = {}
        for name, value in state["state"][index].items():
            # AdamW's `step` is a single number, which cannot be split.
            if torch.is_tensor(value) and value.shape == weight.shape:
                value = split_like(value.to(weight.device), weight)
            split[index][name] = value
    return {**state, "state": split}


def parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The weights in the order of the numbers in the optimizer's state dict."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def read(run_dir: Path, resume: Checkpoint, model: nn.Module, optimizers: list) -> Checkpoint:
    """weights, averaged and optimizer of resume_STEP/.

    Raises UserError if it is missing or damaged.
    """
    # The name stands in a file: ../x must not lead out of the run folder.
    if not FOLDER.fullmatch(str(resume["shards"])):
        raise UserError(
            f"the folder {resume['shards']!r} in {run_dir / 'resume.pt'}",
            "the name of a folder next to it, such as resume_000500",
            "use the resume.pt of a run of this project",
        )
    folder = files.existing(
        run_dir / resume["shards"],
        "every process's part of the saved state",
        "copy it next to its resume.pt",
    )
    check(folder, resume.get("shard_files") or {})  # version 0.1.0 listed none
    try:
        tensors = read_tensors(folder, model.state_dict(), optimizers)
    except DAMAGE as error:
        raise UserError(
            f"{folder}, which is damaged or of another model ({type(error).__name__})",
            "the folder that the run wrote",
            AGAIN,
        ) from error
    weights: dict[str, Tensor] = {}
    averaged: dict[str, Tensor] = {}
    states = [{**state, "state": {}} for state in resume["optimizer"]]
    for key, value in tensors.items():
        group, name = key.split("/", 1)
        if group == "optimizer":
            number, index, name = name.split("/")
            states[int(number)]["state"].setdefault(int(index), {})[name] = value
        else:
            (weights if group == "weights" else averaged)[name] = value
    return {"weights": weights, "averaged": averaged or None, "optimizer": states}


def read_tensors(folder: Path, like: dict[str, Tensor], optimizers: list) -> dict[str, Tensor]:
    """The tensors of a folder by their keys, each split as the weight is that it belongs to."""
    reader = Reader(folder)
    tensors = {}
    for key, entry in reader.read_metadata().state_dict_metadata.items():
        # Other entries are pickled bytes, which nothing here has written.
        if not isinstance(entry, TensorStorageMetadata):
            raise pickle.UnpicklingError(f"{key} is no tensor")
        tensors[key] = room_for(key, entry, like, optimizers)
    dcp.load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    return tensors


def check(folder: Path, table: dict[str, dict]) -> None:
    """Compare the folder's files with their checksums, each process some of them.

    Raises UserError, in all processes, for a file that is missing or changed.
    """

    def problem(entry: tuple[str, dict]) -> UserError | None:
        try:
            files.check_files(folder, dict([entry]), AGAIN)
        except UserError as error:
            return error
        return None

    for error in shared(sorted(table.items()), problem):
        if error:
            raise error


def room_for(
    key: str, entry: TensorStorageMetadata, like: dict[str, Tensor], optimizers: list
) -> Tensor:
    """An empty tensor for a saved tensor, split as the weight is that it belongs to."""
    group, name = key.split("/", 1)
    if group in ("weights", "averaged"):
        return torch.zeros_like(like[name])
    number, index, _ = name.split("/")
    weights: list[Tensor] = []
    if int(number) < len(
        optimizers
    ):  # otherwise `Run` refuses the state, with the optimizer's name
        weights = parameters(optimizers[int(number)])
    if int(index) < len(weights) and weights[int(index)].shape == entry.size:
        return torch.zeros_like(weights[int(index)])
    return torch.zeros(entry.size, dtype=entry.properties.dtype)
