"""The house: imports only go down, scripts stand alone, size tables are true, and the README's commands are real."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config import LENGTH_HIDDEN, NAMED_SIZES, ModelConfig, named_size
from model import Denoiser

ROOT = Path(__file__).parent.parent
FLOORS = {  # a module imports from lower floors, and within its own floor only what stands before it
    0: [
        "files",
        "config",
        "metrics",
        "tokenizer",
        "sentences",
        "copies",
        "pages",
        "pictures",
        "diagrams",
        "gallery",
        "images",
        "scenes",
        "captions",
        "coco_scores",
        "caption_files",
        "ratings",
        "photos",
        "bundle",
        "runtime",
        "operators",
        "engines",
        "roofline",
    ],
    1: [
        "checksums",
        "distributed",
        "shards",
        "hardware",
        "model",
        "diffusion",
        "samplers",
        "autoregressive",
        "text_encoder",
        "data",
        "data_parts",
        "sources",
        "pairs",
        "caption_data",
        "vision",
        "pixels",
        "clip_scores",
        "muon",
    ],
    2: [
        "checkpoint",
        "evaluation",
        "filling",
        "conditional",
        "captioning",
        "teacher",
        "rewards",
        "probe",
        "caption_scores",
        "graphs",
        "parity",
        "quantization",
        "latency",
    ],
    3: ["training", "scaling"],
    4: [
        "demo",
        "prep_caption_synthetic",
        "prep_caption_photos",
        "train_encoder",
        "train_captioning",
        "generate_caption",
        "visualize_architecture",
        "data_prep",
        "train",
        "generate",
        "prep_conditional_data",
        "train_conditional",
        "generate_conditional",
        "evaluate",
        "benchmark",
        "export_onnx",
        "infer_onnx",
        "plan_scaling",
        "plan_photos",
    ],
}
ORDER = [name for floor in FLOORS.values() for name in floor]
SCRIPTS = FLOORS[4]


def imports(name: str) -> set[str]:
    """Modules of this project that `name` imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found & set(ORDER)


def test_every_file_has_a_floor():
    assert {path.stem for path in ROOT.glob("*.py")} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_only_go_down(name):
    for other in imports(name):
        assert other not in SCRIPTS, f"{name} imports the script {other}"
        assert ORDER.index(other) < ORDER.index(name), (
            f"{name} imports {other}, which stands above it"
        )
    if name == "model":
        assert not imports(name) & {"diffusion", "samplers"}
    if name in ("diffusion", "samplers"):
        assert "model" not in imports(name)


def test_the_ground_floor_needs_no_torch():
    code = f"import sys; sys.modules['torch'] = None; import {', '.join(FLOORS[0])}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_budgets():
    for name in ORDER:
        lines = len((ROOT / f"{name}.py").read_text(encoding="utf-8").splitlines())
        assert lines <= (240 if name in SCRIPTS else 450), (
            f"{name}.py has {lines} lines: split the idea"
        )


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_have_one_skeleton(name):
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    doc = ast.get_docstring(tree)
    assert "python " + name in doc and re.search(r"^(Reads|Writes)", doc, re.M)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert [argument.arg for argument in functions["main"].args.args] == [
        "argv"
    ] and "parse_args" in functions
    assert text.rstrip().endswith('if __name__ == "__main__":\n    files.run(main)')
    module = importlib.import_module(name)
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_wrong_flag_is_one_line_and_status_2(name):
    done = subprocess.run(
        [sys.executable, f"{name}.py", "--sed", "3"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: found the flag --sed; expected --seed; correct the spelling\n"


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_sizes_are_the_codes():
    for name in NAMED_SIZES:
        size = named_size(name)
        more = {"condition_width": 768, "length_hidden": LENGTH_HIDDEN} if name == "caption" else {}
        count = Denoiser(ModelConfig(**size, **more)).num_parameters()
        assert (
            f"| `{name}` | {size['d_model']} | {size['heads']} | {size['layers']} | {count / 1e6:.1f} M |"
            in readme()
        )


def test_readme_lists_every_script_and_every_logged_key():
    for name in ORDER:
        assert f"`{name}.py`" in readme()
    for key in (
        "step",
        "loss",
        "nats_per_token",
        "masked_cross_entropy",
        "masked_accuracy",
        "token_accuracy",
        "gradient_norm",
        "tokens_seen",
        "learning_rate",
        "tokens_per_second",
        "val_nats_per_token",
        "val_bits_per_byte",
        "val_masked_cross_entropy",
        "val_masked_accuracy",
        "val_cross_entropy",
        "val_accuracy",
        "length_cross_entropy",
    ):
        assert f"`{key}`" in readme(), key


def test_readme_commands_parse():
    """Every `python script.py …` line of the README's blocks is accepted by that script's own parser."""
    commands = re.findall(
        r"^python (\w+)\.py(.*)$",
        "\n".join(re.findall(r"```(?:bash|sh)?\n(.*?)```", readme(), re.S)),
        re.M,
    )
    assert {name for name, _ in commands} == set(SCRIPTS)
    for name, words in commands:
        import shlex

        importlib.import_module(name).parse_args(shlex.split(words, comments=True))


def test_no_telltale():
    """No notebook's, no machine's and no build's leftovers in what git tracks."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert not [name for name in tracked if name.endswith((".pt", ".npy", ".pyc", ".tmp"))]
    for path in ROOT.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "weights_only=False" not in text and "allow_pickle=True" not in text
        assert not re.search(r"\btype=bool", text) and "os.environ" not in text


def test_settings_are_json():
    from config import TrainConfig, to_dict

    assert json.loads(json.dumps(to_dict(TrainConfig()))) == to_dict(TrainConfig())
