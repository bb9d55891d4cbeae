"""Turn a trained captioner, text model, twin or policy into a bundle: ONNX graphs, without torch.

Reads   a checkpoint, and held-out inputs for the gate: --data_dir, a folder of captions, of text or
        of demonstrations
Writes  --out: the graphs, bundle.json, tokenizer, golden outputs, infer_onnx.py with its modules

Two minutes on a laptop:
    python export_onnx.py --checkpoint checkpoints_caption_poc/best.pt --out bundle
    python infer_onnx.py --bundle bundle --self_test
For a Jetson (docs/edge.md), for small CPUs, and as small as possible:
    python export_onnx.py --out bundle_fp16 --precision fp16 --tensorrt --inputs 500
    python export_onnx.py --out bundle_int8 --precision int8 --inputs 500
    python export_onnx.py --out bundle_small --precision int8 --compact
With adapters to choose from when the bundle runs (docs/edge.md):
    python export_onnx.py --adapter tales=tales/adapter.safetensors news=news/adapter.safetensors
A policy that moves a robot (docs/robot.md):
    python export_onnx.py --checkpoint checkpoints_policy/best.pt --out bundle_policy

The gate compares every graph with torch on --inputs held-out inputs: logits within a tolerance, the
likeliest texts token for token, chunks of actions bin for bin. If a graph fails, the export fails
and leaves nothing.
The checkpoint decides the architecture; there are no model flags.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from base import bundle, config, files, flags
from base.config import SampleConfig
from base.decoding import SAMPLERS
from base.files import UserError
from base.flags import check, setting
from base.runtime import Runner
from edge import building, description, onnx_files, parity, policy_building, tensorrt
from edge.adapter_inputs import open_variants, parse
from edge.inputs import Trained, open_trained, real_inputs
from loop import checkpoint
from net.chunks import ChunkConfig
from net.experts import refuse

# Settings of samplers that the graphs do not have.
NOT_IN_GRAPHS = ("top_p", "block_size", "factor", *config.SPECIAL, "remask", "remask_strength")


@dataclass
class Export:
    """The export: what goes in, what comes out, and what the gate compares."""

    checkpoint: str | None = setting(None, "default: the newest below this folder")
    adapter: list[str] | None = setting(
        None, "an adapter to merge, or NAME=FILE of each to choose from later", metavar="FILE"
    )
    out: str = setting("bundle", "folder to write")
    data_dir: str | None = setting(
        None,
        "real inputs (default: data_captions_synthetic for a captioner, data_robot for a policy, "
        "else data_full)",
    )
    split: str = setting("val", "split of the real inputs")
    inputs: int = setting(64, "inputs that the gate compares", at_least=1)
    precision: str = setting(
        "fp32", "of the products with weights", choices=tuple(parity.TOLERANCES)
    )
    calibration: int = setting(64, "training inputs that INT8 is calibrated on", at_least=1)
    tensorrt: bool = setting(False, "write build_engines.sh: the trtexec commands for the device")
    compact: bool = setting(
        False, "keep only the graphs that write texts on a CPU: no --revise, no TensorRT"
    )
    code: bool = setting(True, "copy infer_onnx.py and base/ into the bundle, for a device")
    opset: int = setting(18, "ONNX opset: 18, or 20, whose Gelu TensorRT 10.3 does not read")
    seed: int = setting(0, "of the noise that the gate samples with", at_least=0)
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        check(self)
        if self.opset not in onnx_files.OPSETS:
            raise UserError(f"--opset {self.opset}", "18 or 20", "choose one of these")
        if self.compact and self.tensorrt:
            raise UserError(
                "--compact with --tensorrt",
                "one of the two: TensorRT needs step.onnx, which --compact leaves out",
                "drop one",
            )


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Export)
    # The kind of the checkpoint decides the defaults, so --help names both.
    texts, said = flags.to_dict(SampleConfig()), {}
    for name, value in config.CAPTIONS.items():
        if value != texts[name]:
            said[name] = f"{value} for captions, {texts[name]} for texts"
    parser.add_settings(SampleConfig, skip=NOT_IN_GRAPHS, said=said)
    parser.add_settings(ChunkConfig, skip=policy_building.NOT_IN_GRAPHS)
    return parser.parse_args(argv)


def check_settings(export: Export, trained: Trained, settings: SampleConfig) -> None:
    """Raises UserError for flags that this checkpoint or its graphs cannot do."""
    sizes, length = trained.model.config.trained_sizes, trained.model.config.max_length
    if sizes and length not in sizes:
        # The graphs call the network on whole texts, which it then has not learnt.
        raise UserError(
            f"a block model of sizes {', '.join(map(str, sizes))}",
            f"a text model that also learnt the block size {length}, its whole length",
            f"train it with {length} among its --block_sizes",
        )
    if trained.objective == "ar" and export.precision != "fp32":
        raise UserError(
            f"--precision {export.precision} for a twin",
            "fp32",
            "drop it: the twin is exported for comparisons only",
        )
    if export.precision != "fp32":
        refuse(trained.model.config, f"--precision {export.precision}", "leave out --precision")
    if settings.sampler not in SAMPLERS:
        raise UserError(
            f"--sampler {settings.sampler}",
            "a sampler that the graphs know: " + ", ".join(SAMPLERS),
            "choose one of these",
        )
    if export.compact and settings.revise:
        raise UserError(
            f"--compact with --revise {settings.revise}",
            "one of the two: --revise needs step.onnx, which --compact leaves out",
            "drop one",
        )


def export_policy(path: Path, export: Export, arguments) -> None:
    """A policy's bundle. Raises UserError for flags that are of other kinds of models."""
    making = policy_building.making_of(arguments)
    for name in ("tensorrt", "compact", "adapter"):
        if getattr(export, name):
            raise UserError(
                f"--{name} for a policy", "a captioner or a text model", f"drop --{name}"
            )
    out = Path(export.out)
    with bundle.being_made(out) as made:
        if export.code:
            bundle.copy_code(Path(__file__).parent, made)
        facts = policy_building.build(
            path,
            made,
            export.data_dir or "data_robot",
            making,
            precision=export.precision,
            opset=export.opset,
            inputs=export.inputs,
            calibration=export.calibration,
        )
        policy_building.finish(made, facts)
    report(facts)
    command = files.python("infer_onnx.py", "--bundle", out, "--self_test")
    print(f"wrote {out}; now: {command}", file=sys.stderr)


def report(facts: dict) -> None:
    """Print the gate's comparisons as a Markdown table, and the scores."""
    print("| compared | inputs | result | limit |\n|---|---|---|---|")
    for row in facts["parity"]:
        result = f"{row['error']:.1e}" if "error" in row else f"{row['identical']:.1%}"
        if "difference" in row:
            result = f"{row['identical']:.2%}, at most {row['difference']:.1e} apart"
        print(f"| {row['what']} | {row['inputs']} | {result} | {row['limit']} |")
    for name, judged in facts.get("scores", {}).items():
        shares = [f"{key} {100 * share:.1f}" for key, share in judged.items() if key != "images"]
        print(f"{name}, {judged['images']} images: {', '.join(shares)}")


def main(argv=None):
    arguments = parse_args(argv)
    export = flags.resolve(Export, arguments)
    torch.set_num_threads(export.threads or torch.get_num_threads())
    path = Path(export.checkpoint or checkpoint.newest(("caption", "text")))
    if checkpoint.kind_of(path) == "policy":
        return export_policy(path, export, arguments)
    merged, named = parse(export.adapter)
    trained = open_trained(path, merged)
    variants = open_variants(trained, named)
    print(f"{path}: {checkpoint.describe(trained.saved)}", file=sys.stderr)
    captions = trained.encoder is not None
    # Captions and texts have different best samplers (docs/log/captions.md, docs/log/text.md).
    settings = flags.resolve(SampleConfig, arguments, config.CAPTIONS if captions else {})
    check_settings(export, trained, settings)
    data_dir = export.data_dir or ("data_captions_synthetic" if captions else "data_full")
    out = Path(export.out)
    with bundle.being_made(out) as made:
        material = real_inputs(trained, data_dir, export.split, export.inputs)
        precision, opset = export.precision, export.opset
        facts = description.describe(
            trained, path, settings, precision=precision, opset=opset, adapters=named
        )
        building.write_graphs(variants, made, facts, data_dir, export.calibration, export.compact)
        files.write_text(made / "tokenizer.json", trained.tokenizer.to_json())
        if export.code:  # a device needs no checkout: the bundle carries the code that runs it
            bundle.copy_code(Path(__file__).parent, made)
        if export.tensorrt:
            files.write_text(made / "build_engines.sh", tensorrt.build_script(facts))
        building.prove(variants, made, facts, material, export.seed)
        # After the gate: golden outputs of a refused bundle would be of no use.
        description.write_golden(variants, made, material, settings)
        if export.compact:
            building.make_compact(made, facts)
        bundle.seal(made, facts)
        Runner(made)  # checks every file once more
    report(facts)
    command = files.python("infer_onnx.py", "--bundle", out, "--self_test")
    print(f"wrote {out}; now: {command}", file=sys.stderr)


if __name__ == "__main__":
    files.run(main)
