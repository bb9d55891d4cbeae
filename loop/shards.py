"""The state of a run whose weights are split over processes (floor 1): every process's part in a folder, through
torch.distributed.checkpoint. It loads again on any number of processes, split or whole.

    resume.pt         everything but the tensors; `shards`, the folder's name; `shard_files`, size and SHA-256 of each file in it.
                      Renaming it into place is what saves
    resume_STEP/      .metadata, and a file a process: weights/NAME, averaged/NAME, optimizer/NUMBER/PARAMETER/NAME

A folder's .metadata is a pickle, the only form that torch has. It is read with nothing allowed but the classes that
describe tensors.
"""

import pickle
import re
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.tensor import DTensor

from base import files
from base.files import UserError
from loop.distributed import divide, shared, split_weights

FOLDER = re.compile(r"resume_\d+")
DESCRIBE_TENSORS = {  # all that an honest .metadata names
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


class Reader(dcp.FileSystemReader):
    """torch's reader, without its trust in whoever wrote the folder."""

    def read_metadata(self, *args, **kwargs) -> Metadata:
        with open(Path(self.path) / ".metadata", "rb") as file:
            metadata = Descriptions(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class Descriptions(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if name not in DESCRIBE_TENSORS.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} describes no tensor")
        return super().find_class(module, name)


def save(
    run_dir: Path, step: int, weights: dict, averaged: dict | None, optimizers: list[dict]
) -> dict:
    """Write resume_STEP/, all processes together; return what resume.pt holds in place of the tensors."""
    tensors = {f"weights/{name}": value for name, value in weights.items()} | {
        f"averaged/{name}": value for name, value in (averaged or {}).items()
    }
    for number, state in enumerate(optimizers):
        tensors |= {
            f"optimizer/{number}/{index}/{name}": value
            for index, values in state["state"].items()
            for name, value in values.items()
        }
    name = f"resume_{step:06d}"
    dcp.save(tensors, storage_writer=dcp.FileSystemWriter(run_dir / name))
    table = shared(
        sorted(path.name for path in (run_dir / name).iterdir()),
        lambda file: files.listed(run_dir / name, [file]),
    )
    return {
        "weights": None,
        "averaged": None,
        "optimizer": [{"state": {}, "param_groups": state["param_groups"]} for state in optimizers],
        "shards": name,
        "shard_files": {file: about for one in table for file, about in one.items()},
    }


def remove_others(run_dir: Path, keep: str | None) -> None:
    """Remove the folders of earlier steps."""
    for path in run_dir.glob("resume_*"):
        if path.name != keep and FOLDER.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path)


def whole_or_split(resume: dict, run_dir: Path, model: nn.Module, optimizers: list) -> dict:
    """The content of a resume.pt with its tensors, split as `model` is, wherever and however it was saved."""
    if resume.get("shards"):
        return resume | read(run_dir, resume, model, optimizers)
    like = model.state_dict()
    if not any(isinstance(value, DTensor) for value in like.values()):
        return resume
    states = []
    for optimizer, state in zip(optimizers, resume["optimizer"], strict=False):
        split = {
            index: {
                name: divide(value.to(weight.device), weight)
                if torch.is_tensor(value) and value.shape == weight.shape
                else value
                for name, value in state["state"][index].items()
            }
            for index, weight in enumerate(parameters(optimizer))
            if index in state["state"]
        }
        states.append(state | {"state": split})
    return resume | {
        "weights": split_weights(resume["weights"], like),
        "averaged": resume["averaged"] and split_weights(resume["averaged"], like),
        "optimizer": states + resume["optimizer"][len(states) :],
    }


def parameters(optimizer) -> list[Tensor]:
    """In the order of its state dict's numbers."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def read(run_dir: Path, resume: dict, model: nn.Module, optimizers: list) -> dict:
    """weights, averaged and optimizer of resume_STEP/. Raises UserError if it is missing or damaged."""
    if not FOLDER.fullmatch(str(resume["shards"])):
        raise UserError(
            f"the folder {resume['shards']!r} in {run_dir / 'resume.pt'}",
            "the name of one beside it, such as resume_000500",
            "use the resume.pt of a run of this project",
        )
    folder = files.existing(
        run_dir / resume["shards"],
        "every process's part of the saved state",
        "copy it beside its resume.pt",
    )
    check(folder, resume.get("shard_files") or {})  # none before there were any
    like = model.state_dict()
    try:
        reader = Reader(folder)
        tensors = {}
        for key, entry in reader.read_metadata().state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                raise pickle.UnpicklingError(f"{key} is no tensor")
            tensors[key] = room_for(key, entry, like, optimizers)
        dcp.load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    except (
        pickle.UnpicklingError,
        CheckpointException,
        OSError,
        EOFError,
        KeyError,
        ValueError,
        RuntimeError,
        AttributeError,
        IndexError,
    ) as error:
        raise UserError(
            f"{folder}, which is damaged or of another model ({type(error).__name__})",
            "the folder that the run wrote",
            "copy it again, or begin a run from last.pt with --init_from",
        ) from error
    result = {
        "weights": {},
        "averaged": {},
        "optimizer": [dict(state, state={}) for state in resume["optimizer"]],
    }
    for key, value in tensors.items():
        part, name = key.split("/", 1)
        if part == "optimizer":
            number, index, name = name.split("/")
            result[part][int(number)]["state"].setdefault(int(index), {})[name] = value
        else:
            result[part][name] = value
    return result | {"averaged": result["averaged"] or None}


def check(folder: Path, table: dict) -> None:
    """Hold the folder's files to their checksums, each process some of them. Raises UserError, in all, for one that is missing or changed."""

    def problem(item) -> UserError | None:
        try:
            files.check_files(
                folder, dict([item]), "copy it again, or begin a run from last.pt with --init_from"
            )
        except UserError as error:
            return error
        return None

    for error in shared(sorted(table.items()), problem):
        if error:
            raise error


def room_for(key: str, entry: TensorStorageMetadata, like: dict, optimizers: list) -> Tensor:
    """An empty tensor for a saved one, split as the weight that it belongs to is."""
    part, name = key.split("/", 1)
    if part in ("weights", "averaged"):
        return torch.zeros_like(like[name])
    number, index, _ = name.split("/")
    weights = (
        parameters(optimizers[int(number)]) if int(number) < len(optimizers) else []
    )  # else refused with its name by the optimizer
    if int(index) < len(weights) and weights[int(index)].shape == entry.size:
        return torch.zeros_like(weights[int(index)])
    return torch.zeros(entry.size, dtype=entry.properties.dtype)
