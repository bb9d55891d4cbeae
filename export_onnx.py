"""Turn a trained captioner, text model or twin into a bundle: a folder of ONNX graphs that runs, and proves itself, without torch.

Reads   a checkpoint, and real inputs for the gate: --data_dir, a captions folder or a text folder like the one it was trained on
Writes  --out: the graphs, bundle.json, tokenizer, golden outputs, infer_onnx.py with its modules; whole or not at all

Two minutes on a laptop:
    python export_onnx.py --checkpoint checkpoints_caption_poc/best.pt --out bundle
    python infer_onnx.py --bundle bundle --self_test
For a Jetson (docs/edge.md), and for small CPUs:
    python export_onnx.py --out bundle_fp16 --precision fp16 --tensorrt --inputs 500
    python export_onnx.py --out bundle_int8 --precision int8 --inputs 500

The export fails, and leaves nothing, unless every graph agrees with torch on --inputs held-out inputs: logits within a
tolerance, the likeliest texts token for token. The checkpoint decides the architecture; there are no model flags.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from base import bundle, config, files, flags
from base.config import SampleConfig
from base.files import UserError
from base.folders import check_tokenizer
from base.decoding import SAMPLERS
from base.runtime import Runner
from caption import data as caption_data
from caption import features
from edge import engines, graphs, operators, parity, quantization
from edge.parity import Material, Trained
from loop import checkpoint
from text.data import TextData

GOLDEN = 16  # inputs that the bundle keeps with their outputs


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("--checkpoint", help="default: the newest below this folder")
    parser.add_argument("--out", default="bundle", help="folder to write (default %(default)s)")
    parser.add_argument(
        "--data_dir",
        help="real inputs (default: data_captions_synthetic for a captioner, else data_full)",
    )
    parser.add_argument("--split", default="val", help="of the real inputs (default %(default)s)")
    parser.add_argument(
        "--inputs", type=int, default=64, help="inputs that the gate compares (default %(default)s)"
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="|".join(parity.TOLERANCES),
        help="of the products with weights (default fp32)",
    )
    parser.add_argument(
        "--calibration",
        type=int,
        default=64,
        help="training inputs that INT8 is calibrated on (default %(default)s)",
    )
    parser.add_argument(
        "--tensorrt",
        action="store_true",
        help="write build_engines.sh with the trtexec commands for the device",
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="keep only the graphs that write texts on a CPU: no --revise, no TensorRT",
    )
    parser.add_argument(
        "--opset",
        type=int,
        default=18,
        help="ONNX opset, 18 or 20, whose Gelu TensorRT 10.3 does not read (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the noise that the gate samples with (default 0)"
    )
    parser.add_argument("--threads", type=int, default=0)
    parser.add_settings(
        SampleConfig,
        skip=("top_p", "block_size", "factor", "remask", "remask_strength"),
        **config.CAPTIONS,
    )
    return parser.parse_args(argv)


def open_trained(path) -> Trained:
    """The checkpoint's model and, for a captioner, its encoder. Raises UserError if the encoder is not the one it was trained on."""
    model, tokenizer, saved = checkpoint.open_model(path, kinds=("text", "caption"))
    encoder = None
    if saved["kind"] == "caption":
        encoder = features.open_encoder(saved, path)
        if hasattr(encoder.model, "set_attn_implementation"):
            encoder.model.set_attn_implementation(
                "eager"
            )  # the fused operator exports 72 nodes of noise
    return Trained(model, tokenizer, saved, encoder)


def real_inputs(trained: Trained, folder, split: str, count: int) -> Material:
    """Held-out pictures with their captions, or held-out rows of text, of the tokenizer that the checkpoint has."""
    model = trained.model.config
    if trained.encoder is None:
        data = TextData(folder, split, model.max_length)
        check_tokenizer(data.tokenizer.fingerprint, trained.tokenizer.fingerprint, folder)
        numbers = np.linspace(0, len(data.starts) - 1, min(count, len(data.starts))).astype(int)
        tokens, lengths = data.rows(numbers)
        return Material(
            [
                row[: min(int(n), parity.CUT)].tolist()
                for row, n in zip(tokens, lengths, strict=True)
            ]
        )
    data = caption_data.CaptionData(folder, split, model.max_length)
    check_tokenizer(data.tokenizer.fingerprint, trained.tokenizer.fingerprint, folder)
    numbers = np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)
    records = [data.records[number] for number in numbers]
    paths = [caption_data.image_path(folder, record) for record in records]
    images = np.stack([trained.encoder.preprocess(path) for path in paths])
    return Material([data.tokens[number][0].tolist() for number in numbers], images, paths, records)


def describe(trained: Trained, path: Path, args, settings: SampleConfig) -> dict:
    """What bundle.json says, but for the parity report and the checksums."""
    tokenizer, saved = trained.tokenizer, trained.saved
    size = {
        name: saved["model"][name]
        for name in (
            "vocab_size",
            "output_size",
            "max_length",
            "d_model",
            "heads",
            "layers",
            "time_conditioning",
        )
    }
    facts = {
        "kind": saved["kind"],
        "objective": saved["objective"],
        "precision": args.precision,
        "opset": args.opset,
        "model": size,
        "sampling": flags.to_dict(settings),
        "samplers": list(SAMPLERS),
        "special": {
            name: getattr(tokenizer, name) for name in ("pad", "bos", "eos", "mask", "unk")
        },
        "tokenizer": tokenizer.fingerprint,
        "tolerances": parity.TOLERANCES[args.precision],
        "checkpoint": {
            "sha256": files.file_digest(path).hex(),
            "data": saved["data"]["fingerprint"],
        }
        | {name: saved[name] for name in ("step", "git")},
    }
    if trained.encoder is not None:
        about = trained.encoder.preprocess
        facts["encoder"] = saved["encoder"]
        facts["preprocess"] = {
            "layout": "NHWC, RGB, uint8",
            "size": about.size,
            "mode": about.mode,
            "resample": about.resample,
            "zoom": about.zoom,
            "mean": list(about.mean),
            "std": list(about.std),
            "inside_the_graph": "divide by 255, mean, std",
        }
    facts["versions"] = {
        "torch": torch.__version__,
        "onnx": graphs.onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
    facts["build"] = files.sha256(repr(sorted(facts.items())).encode())
    return facts


def build_graphs(trained: Trained, network: graphs.Network) -> dict:
    """The torch module of every graph of this checkpoint, in the order in which they run."""
    model, saved, parts = trained.model, trained.saved, {}
    if trained.encoder is not None:
        parts["encoder"] = graphs.EncoderGraph(trained.encoder)
        parts["condition"] = graphs.ConditionGraph(
            model, saved["statistics"], trained.encoder.patches
        )
    if trained.objective == "ar":
        return {**parts, "next": graphs.NextGraph(network)}
    parts["step"], parts["loop"] = (
        graphs.StepGraph(network),
        graphs.LoopGraph(network, trained.tokenizer.mask),
    )
    return parts


def write_golden(
    trained: Trained, folder: Path, material: Material, settings: SampleConfig
) -> None:
    """golden.npz: a few real inputs, and what torch gave for them: greedily as shipped, and with noise."""
    some, arrays = material.first(GOLDEN), {}
    if some.images is not None:
        arrays = {
            "images": some.images,
            "picture": np.frombuffer(Path(some.paths[0]).read_bytes(), np.uint8),
        }
    elif trained.objective != "ar":
        arrays["tokens"], arrays["lengths"] = parity.holes(some.rows, trained.tokenizer, 0.6)
    for name, one in parity.cases(settings, some.images is not None, trained.objective).items():
        if name in ("as shipped", "with noise"):
            written = parity.reference(trained, some, one, 0)
            ids = np.full(
                (len(written), trained.model.config.max_length), trained.tokenizer.pad, np.int32
            )
            for line, (row, _) in zip(ids, written, strict=True):
                line[: len(row)] = row
            arrays[name.replace(" ", "_")] = ids
    with files.replacing(folder / "golden.npz") as file:
        np.savez_compressed(file, **arrays)


def make_compact(folder: Path, facts: dict) -> None:
    """Remove the graphs that writing texts on a CPU does not need, after the gate has judged all."""
    needed = ("encoder", "condition", "loop", "next")
    kept = {name: file for name, file in facts["graphs"]["cpu"].items() if name in needed}
    for path in folder.glob("*.onnx"):
        if path.name not in kept.values():
            path.unlink()
    facts["graphs"] = {"cpu": kept, "tensorrt": {}}


def main(argv=None):
    args = parse_args(argv)
    if args.opset not in graphs.OPSETS:
        raise UserError(f"--opset {args.opset}", "18 or 20", "choose one of these")
    if args.inputs < 1:
        raise UserError(f"--inputs {args.inputs}", "at least 1", "choose such a number")
    out = Path(args.out)
    bundle.settle(out.absolute())
    if (
        out.exists()
        and not (out / "bundle.json").exists()
        and (not out.is_dir() or any(out.iterdir()))
    ):
        raise UserError(
            f"{out}, which is no bundle",
            "a bundle to replace, or a new name",
            "choose another --out",
        )
    files.writable_folder(out.parent)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    path = Path(args.checkpoint) if args.checkpoint else checkpoint.newest(("caption", "text"))
    if args.precision not in parity.TOLERANCES:
        raise flags.unknown(
            f"--precision {args.precision}", args.precision, list(parity.TOLERANCES)
        )
    trained = open_trained(path)
    if trained.objective == "ar" and args.precision != "fp32":
        raise UserError(
            f"--precision {args.precision} for a twin",
            "fp32",
            "drop it: the twin is exported to be compared with",
        )
    print(f"{path}: {checkpoint.describe(trained.saved)}", file=sys.stderr)
    settings = flags.resolve(SampleConfig, args, config.CAPTIONS if trained.encoder else {})
    if settings.sampler not in SAMPLERS:
        raise UserError(
            f"--sampler {settings.sampler}",
            "one that the graphs know: " + ", ".join(SAMPLERS),
            "choose one of these",
        )
    if args.compact and (args.tensorrt or settings.revise):
        raise UserError(
            "--compact with --tensorrt or --revise",
            "only one of them: both need step.onnx, which --compact leaves out",
            "drop one",
        )
    folder = args.data_dir or ("data_captions_synthetic" if trained.encoder else "data_full")
    material = real_inputs(trained, folder, args.split, args.inputs)
    made = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    made.mkdir()
    try:
        facts = describe(trained, path, args, settings)
        about = {
            name: facts[name] for name in ("build", "kind", "objective", "precision", "tokenizer")
        } | {"format": bundle.FORMAT}
        shapes = (
            (trained.encoder.preprocess.size, trained.encoder.patches)
            if trained.encoder
            else (0, 0)
        )
        network, feeds = graphs.Network(trained.model), []
        modules, calibration = build_graphs(trained, network), None
        if args.precision == "int8":
            calibration = real_inputs(trained, folder, "train", args.calibration)
            feeds = list(quantization.states(trained, calibration))
        if args.precision != "fp32":
            facts["lowered"] = quantization.lower(
                network, modules, feeds, calibration.images if calibration else None
            )
        for name, module in modules.items():
            clock = time.perf_counter()
            graphs.export(
                module, name, made / f"{name}.onnx", trained.model, args.opset, about, *shapes
            )
            print(
                f"{name}.onnx: {(made / f'{name}.onnx').stat().st_size / 1e6:.1f} MB, {time.perf_counter() - clock:.0f} s",
                file=sys.stderr,
            )
        if feeds:
            quantization.quantize(
                made, network, modules, facts["lowered"], feeds, calibration.images
            )
        if {"encoder", "loop"} <= set(modules):
            graphs.join(made, facts["special"], trained.model.config.max_length, args.opset, about)
        names = [name for name in (*modules, "captioner") if (made / f"{name}.onnx").exists()]
        special = {
            name: f"{name}.tensorrt.onnx" if feeds else f"{name}.onnx"
            for name in names
            if name in ("encoder", "condition", "step")
        }
        facts["graphs"] = {"cpu": {name: f"{name}.onnx" for name in names}, "tensorrt": special}
        operators.check_for_tensorrt(made, special)
        if trained.objective != "ar":
            sample = [
                {key: value.numpy() for key, value in state.items()}
                for state in quantization.states(trained, material.first(16))
            ]
            facts["ranges"] = operators.check_ranges(
                made / "step.onnx", sample, half=args.precision == "fp16"
            )
        files.write_text(made / "tokenizer.json", trained.tokenizer.to_json())
        bundle.copy_code(Path(__file__).parent, made)
        if args.tensorrt:
            files.write_text(made / "build_engines.sh", engines.script(facts))
        bundle.seal(made, facts)
        facts["parity"] = parity.gate(trained, made, material, args.seed)
        facts["scores"] = parity.scores(trained, Runner(made, check=False), material)
        write_golden(trained, made, material, settings)
        if args.compact:
            make_compact(made, facts)
        bundle.seal(made, facts)
        Runner(made)
        bundle.publish(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    print("| compared | inputs | result | limit |\n|---|---|---|---|")
    for row in facts["parity"]:
        print(
            f"| {row['what']} | {row['inputs']} | {row['error']:.1e} |"
            if "error" in row
            else f"| {row['what']} | {row['inputs']} | {row['identical']:.1%} |",
            row["limit"],
            "|",
        )
    for name, one in facts["scores"].items():
        print(
            f"{name}, {one['images']} pictures: "
            + ", ".join(f"{key} {100 * value:.1f}" for key, value in one.items() if key != "images")
        )
    print(f"wrote {out}; now: python infer_onnx.py --bundle {out} --self_test", file=sys.stderr)


if __name__ == "__main__":
    files.run(main)
