"""What a bundle holds in addition to its graphs: the facts of bundle.json, and golden.npz.

golden.npz has real inputs with the outputs that torch gave for them: `infer_onnx.py --self_test`
compares the device's outputs with these.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from base import bundle, files, flags
from base.adapter_inputs import golden_name
from base.config import SampleConfig
from base.decoding import SAMPLERS
from edge import adapter_inputs, parity
from edge.adapter_inputs import Variant
from edge.inputs import Material, Trained, with_holes
from loop import checkpoint

GOLDEN = 16  # inputs that the bundle keeps with their outputs: 180 kB of 128x128 images
GOLDEN_CASES = ("as shipped", "with noise")  # of `parity.cases`
MODEL_FACTS = (
    "vocab_size",
    "output_size",
    "max_length",
    "d_model",
    "heads",
    "layers",
    "time_conditioning",
)
SPECIAL = ("pad", "bos", "eos", "mask", "unk")


def describe(
    trained: Trained,
    path: Path,
    settings: SampleConfig,
    *,
    precision: str,
    opset: int,
    adapters: dict[str, str] | None = None,
) -> dict:
    """The facts of bundle.json, without the graphs, the parity report and the checksums.

    adapters: files to choose from when the bundle runs, by their names.
    """
    tokenizer, saved = trained.tokenizer, trained.saved
    facts = {
        "kind": saved["kind"],
        "objective": saved["objective"],
        "precision": precision,
        "opset": opset,
        "model": {name: saved["model"][name] for name in MODEL_FACTS},
        "sampling": flags.to_dict(settings),
        "samplers": list(SAMPLERS),
        "special": {name: getattr(tokenizer, name) for name in SPECIAL},
        "tokenizer": tokenizer.fingerprint,
        "tolerances": parity.TOLERANCES[precision],
        "checkpoint": {
            "sha256": checkpoint.digest(path, saved),
            "data": saved["data"]["fingerprint"],
            "step": saved["step"],
            "git": saved["git"],
        },
    }
    if trained.encoder is not None:
        facts["encoder"] = saved["encoder"]
        facts["preprocess"] = describe_preprocess(trained.encoder.preprocess)
    if adapters:
        facts |= {"format": bundle.ADAPTED, "adapters": adapter_inputs.describe(adapters)}
    facts["versions"] = versions()
    # A name for this export. Every graph carries it, so graphs of two exports never mix.
    facts["build"] = files.sha256(repr(sorted(facts.items())).encode())
    return facts


def versions() -> dict[str, str]:
    """What exported a bundle."""
    return {
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }


def describe_preprocess(preprocess) -> dict:
    """How an image becomes the encoder's pixels, for bundle.json."""
    return {
        "layout": "NHWC, RGB, uint8",
        "size": preprocess.size,
        "mode": preprocess.mode,
        "resample": preprocess.resample,
        "zoom": preprocess.zoom,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "inside_the_graph": "divide by 255, mean, std",
    }


def padded(texts: parity.Texts, length: int, pad: int) -> np.ndarray:
    """The ids of texts as rows of one length: (n, length) int32."""
    ids = np.full((len(texts), length), pad, np.int32)
    for line, (row, _) in zip(ids, texts, strict=True):
        line[: len(row)] = row
    return ids


def golden_arrays(
    variants: list[Variant], material: Material, settings: SampleConfig
) -> dict[str, np.ndarray]:
    """Inputs, and torch's outputs for them as shipped and with noise, of the base and each adapter.

    Of a captioner: images (n, S, S, 3) uint8, and picture, the bytes of the first image's file. Of
    a text model: tokens (n, L) with blanks, and lengths (n,). Of a twin: no inputs.
    """
    trained, few, arrays = variants[0].trained, material.part(0, GOLDEN), {}
    captions = few.images is not None
    if captions:
        arrays["images"] = few.images
        # The file too: the device's decoding and resizing are compared as well.
        arrays["picture"] = np.frombuffer(Path(few.paths[0]).read_bytes(), np.uint8)
    elif trained.objective != "ar":
        arrays["tokens"], arrays["lengths"] = with_holes(few.rows, trained.tokenizer, parity.HOLES)
    tried = parity.cases(settings, captions, trained.objective)
    length, pad = trained.model.config.max_length, trained.tokenizer.pad
    # Seed 0: `infer_onnx.py --self_test` draws the same random numbers.
    for variant in variants:
        for name in GOLDEN_CASES:
            texts = parity.reference(variant.trained, few, tried[name], 0)
            key = golden_name(name.replace(" ", "_"), variant.name)
            arrays[key] = padded(texts, length, pad)
    return arrays


def write_golden(
    variants: list[Variant], folder: Path, material: Material, settings: SampleConfig
) -> None:
    """Write golden.npz into a bundle's folder."""
    arrays = golden_arrays(variants, material, settings)
    with files.replacing(folder / "golden.npz") as file:
        np.savez_compressed(file, **arrays)
