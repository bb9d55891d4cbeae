"""Bundles for tests: a captioner, its export, and copies that are changed and sealed again.

An export is the most expensive thing that the tests make. So each is made once for all test files,
and once for all processes of pytest-xdist.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import torch

import export_onnx
from base import bundle, flags, system
from caption import data as caption_data
from edge import onnx_files
from loop import adapter_files, checkpoint
from net import adapters
from tests.making.captioned import make_captioner, make_captions
from tests.making.corpus import make_data, make_run


def made_once(root: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` in `root`, filled by `make` in whichever process comes first."""
    folder, done = root / name, root / f"{name}.done"
    with open(root / f"{name}.lock", "ab") as lock:
        wait_for(lock)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def wait_for(file) -> None:
    """Lock an open file as soon as the other processes let it go."""
    while True:
        try:
            return system.lock(file)
        except (BlockingIOError, PermissionError):
            time.sleep(0.2)


def decisive(path: Path) -> Path:
    """Make the weights of a hardly trained model louder, in its checkpoint.

    Its choices stay arbitrary but become clear. Near ties would fall either way between torch and
    ONNX.
    """
    saved = torch.load(path, weights_only=True)
    for weights in filter(None, (saved["weights"], saved["averaged"])):
        for name, weight in weights.items():
            if weight.ndim == 2 and not name.startswith("length"):
                weight *= 15 if name == "embedding.weight" else 4
            if name.endswith("cross.gate"):
                weight += 0.5
    checkpoint.save(path, saved)
    return path


def export(path: Path, data: Path, out: Path, *flags: str) -> Path:
    """The bundle of a checkpoint, through the gate."""
    words = ["--checkpoint", str(path), "--data_dir", str(data), "--out", str(out)]
    export_onnx.main([*words, "--threads", "1", *flags])
    return out


def make_captioning_world(root: Path) -> None:
    """root/data, root/run with a captioner of one layer, root/bundle: its export on the split's 8
    images."""
    data = make_captions(root / "data")
    make_captioner(data, root / "run", "--time_conditioning", "sinusoidal", "--layers", "1")
    export(decisive(root / "run" / "best.pt"), data, root / "bundle")


def make_text_world(root: Path) -> None:
    """root/data, a text denoiser at opset 20 in root/bundle, and its twin in root/twin_bundle."""
    data = make_data(root / "data")
    make_run(data, root / "run")
    make_run(data, root / "twin", "--objective", "ar")
    few = ["--inputs", "6"]
    export(decisive(root / "run" / "best.pt"), data, root / "bundle", "--opset", "20", *few)
    export(decisive(root / "twin" / "best.pt"), data, root / "twin_bundle", *few)


def make_adapter(path: Path, out: Path, seed: int, **settings) -> Path:
    """An adapter of a checkpoint, in the file `out`: random numbers, as if it had been trained.

    settings: of adapters, such as lora_rank=2.
    """
    model, tokenizer, saved = checkpoint.open_model(path)
    adapters.adapt(model, replace(model.config, **settings))
    adapters.begin(model)
    rng = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if adapters.is_own(name):
            noise = torch.randn(weight.shape, generator=rng)
            # Lengths of rows stay near their matrix's.
            weight.data = weight * (1 + 0.1 * noise) if weight.ndim == 1 else weight + 0.1 * noise
    saved["weights"] = model.state_dict()
    saved["model"] = flags.to_dict(replace(model.config, **settings))
    if "feature_mean" in saved["statistics"]:  # its own images have another mean
        means = [value + 0.05 for value in saved["statistics"]["feature_mean"]]
        saved["statistics"] = {**saved["statistics"], "feature_mean": means}
    out.parent.mkdir(parents=True, exist_ok=True)
    adapter_files.write(out, saved, tokenizer.fingerprint)
    return out


def make_adapted_texts(root: Path) -> None:
    """root/one, root/two: adapters of a text denoiser of two kinds; root/bundle: with both."""
    data = make_data(root / "data")
    path = decisive(make_run(data, root / "run") / "best.pt")
    one = make_adapter(path, root / "one" / "adapter.safetensors", 1, lora_rank=2)
    how = {"lora_rank": 3, "lora_targets": "query,up,down", "lora_norm": True}
    two = make_adapter(path, root / "two" / "adapter.safetensors", 2, **how)
    export(path, data, root / "bundle", "--inputs", "6", "--adapter", f"one={one}", f"two={two}")


def make_adapted_captions(root: Path, made: Path, data: Path) -> None:
    """root/one, root/two: adapters of a captioner of two kinds; root/bundle: with both.

    made: the captioner's checkpoint. data: its folder.
    """
    one = make_adapter(made, root / "one" / "adapter.safetensors", 1, lora_rank=3)
    how = {"lora_rank": 2, "lora_targets": "value,out,up", "lora_norm": True}
    two = make_adapter(made, root / "two" / "adapter.safetensors", 2, **how)
    export(made, data, root / "bundle", "--inputs", "6", "--adapter", f"one={one}", f"two={two}")


def image_of(data: Path) -> Path:
    """The file of the first held-out image."""
    for record in caption_data.read_records(data):
        if record["split"] == "val":
            return caption_data.image_path(data, record)
    raise AssertionError(f"no held-out image in {data}")


def resealed(made: Path, out: Path, change: Callable[[Path, dict], None]) -> Path:
    """A copy of a bundle in `out`, changed by change(out, facts), with right checksums again."""
    shutil.copytree(made, out)
    facts = bundle.read(out)
    change(out, facts)
    written = ("files", "checksum")  # `seal` writes these itself
    kept = {name: value for name, value in facts.items() if name not in written}
    if kept["format"] == bundle.FORMAT:
        del kept["format"]
    bundle.seal(out, kept)
    return out


def reuse_graphs(monkeypatch, made: Path) -> None:
    """Let the next exports take the FP32 graphs of an existing bundle: torch's exporter is slow."""

    def export(module, name, path, sizes, opset, facts):
        onnx_files.write(onnx.load(made / path.name), name, path, facts)

    monkeypatch.setattr(onnx_files, "export", export)
