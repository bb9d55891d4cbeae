"""The house: imports go down, scripts stand alone, tables are true, documented commands are real."""

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from base.config import LENGTH_HIDDEN, NAMED_SIZES, ModelConfig, TrainConfig, named_size
from base.files import UserError
from base.flags import to_dict
from model import Denoiser
from tests.making.sources import COMMANDS, FLOORS, NAMES, ROOT, SCRIPTS, SOURCES, command_line


def imports(path: Path) -> set[str]:
    """The rooms and root modules of this project that a file imports, at the top or in a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names & {*FLOORS, *SCRIPTS}


@pytest.mark.parametrize("name", NAMES)
def test_imports_only_go_down(name):
    room = name.removesuffix(".py").split("/")[0]
    for other in imports(ROOT / name) - {room}:
        assert other not in SCRIPTS, f"{name} imports the script {other}"
        assert FLOORS[other] < FLOORS.get(room, 7), f"{name} imports {other}, which is not below it"


def test_the_rooms_without_torch_need_no_torch():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ("base", "worlds", "show")
        for path in sorted((ROOT / room).glob("[a-z]*.py"))
    ]
    code = f"import sys; sys.modules['torch'] = None; import {', '.join(modules)}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_scripts_have_one_skeleton(name):
    text = (ROOT / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8")
    tree = ast.parse(text)
    doc = ast.get_docstring(tree)
    assert " ".join(["python", *command_line(name)]).removesuffix(".py") in doc and re.search(
        r"^(Reads|Writes)", doc, re.M
    )
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert [argument.arg for argument in functions["main"].args.args] == [
        "argv"
    ] and "parse_args" in functions
    assert text.rstrip().endswith('if __name__ == "__main__":\n    files.run(main)')
    module = importlib.import_module(name)
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_flag_is_named(name):
    with pytest.raises(UserError) as error:
        importlib.import_module(name).main(["a", "b", "--versio"])
    assert str(error.value) == "found the flag --versio; expected --version; correct the spelling"


def test_a_users_mistake_is_one_line_and_status_2(tmp_path):
    """As a user types it, from another working folder, without PYTHONPATH."""
    command = [sys.executable, str(ROOT / "train.py"), "--sed", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: found the flag --sed; expected --seed; correct the spelling\n"


def longest_function(name: str) -> tuple[int, str]:
    """The lines of the longest function of a file, and its name."""
    functions = [
        (node.end_lineno - node.lineno + 1, node.name)
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    return max(functions, default=(0, ""))


@pytest.mark.parametrize("name", NAMES)
def test_budgets(name):
    """Lines are never squeezed to fit: no line over 100 characters, no function over 50 lines."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines), default=0) <= 100
    assert len(lines) <= (220 if name.removesuffix(".py") in SCRIPTS else 400), "split the idea"
    length, function = longest_function(name)
    assert length <= 50, f"{function} has {length} lines: split the idea"


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_have_short_lines(page):
    """No line over 100 characters; tables, commands, headings, quotes and pictures may be longer."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines = [line for line in text.splitlines() if not re.match(r"\s*([|#>]|!\[)", line)]
    # A link may be one long word.
    assert not [line for line in lines if len(line) > 100 and " " in line.strip()[:100]]


@pytest.mark.parametrize("name", NAMES)
def test_printed_commands_quote_their_words(name):
    """Python's own {path} would break at a space when a user pastes the command."""
    text = (ROOT / name).read_text(encoding="utf-8")
    bare = re.findall(r"f[\"'].*\b\w+\.py\b.* --\w+ \{.*", text)
    assert not [line for line in bare if name != "tools/plan_photos.py"]  # it has names of its own


def test_the_root_stays_small():
    assert len(list(ROOT.glob("*.py"))) <= 30
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150


@pytest.mark.parametrize("name", NAMES)
def test_tests_mirror_the_rooms(name):
    """tests/ROOM/test_MODULE.py for each module, tests/test_SCRIPT.py for each script."""
    path = Path(name)
    if path.name != "__init__.py":
        assert (ROOT / "tests" / path.parent / f"test_{path.stem}.py").exists()


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def pages() -> str:
    """README.md and the pages of docs/, joined."""
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def test_documented_sizes_are_the_codes():
    for name in NAMED_SIZES:
        size = named_size(name)
        more = {"condition_width": 768, "length_hidden": LENGTH_HIDDEN} if name == "caption" else {}
        with torch.device("meta"):  # shapes without memory
            count = Denoiser(ModelConfig(**size, **more)).num_parameters()
        assert (
            f"| `{name}` | {size['d_model']} | {size['heads']} | {size['layers']} | {count / 1e6:.1f} M |"
            in pages()
        )


def test_every_logged_key_is_documented():
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
        assert f"`{key}`" in pages(), key


def test_the_map_has_a_line_for_every_file():
    """docs/map.md names each file of the rooms and the root, and no file that is not there."""
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8").split("## Old names")[0]
    listed = set(re.findall(r"^\| `([\w/]+\.py)` \|", text, re.M))
    files = {name for name in NAMES if not name.endswith("__init__.py")}
    assert not files - listed, f"docs/map.md needs a line for {sorted(files - listed)}"
    gone = {name for name in listed - files if not (ROOT / name).exists()}
    assert not gone, f"docs/map.md lists {sorted(gone)}, which is not there"


def test_links_between_pages_lead_somewhere():
    """A link to a file of the project names a file that is there, and a heading that is in it."""
    for page in [*PAGES, *sorted((ROOT / "docs" / "log").glob("*.md"))]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            assert path.exists(), f"{page.name} links to {target}"
            if anchor and path.suffix == ".md":
                assert anchor in anchors(path), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub writes them into links."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def documented_commands() -> list[tuple[str, str]]:
    """(command, its words) of every line of the bash blocks in README.md and docs/."""
    commands = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M):
            if language not in ("", "bash", "sh"):
                continue
            for script, tool, words in re.findall(
                r"^python (?:(\w+)\.py|-m (tools\.\w+))(.*)$", block, re.M
            ):
                commands.append((script or tool, words))
    return commands


def test_documented_commands_parse():
    """Every command of the README and of docs/ is accepted by that command's own parser."""
    commands = documented_commands()
    assert {name for name, _ in commands} == set(COMMANDS)
    for name, words in commands:
        importlib.import_module(name).parse_args(shlex.split(words, comments=True))


def test_no_telltale():
    """No notebook's, no machine's and no build's leftovers in what git tracks."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert not [name for name in tracked if name.endswith((".pt", ".npy", ".pyc", ".tmp"))]
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert "weights_only=False" not in text and "allow_pickle=True" not in text
        assert not re.search(r"\btype=bool", text)
        # tools/compare.py passes the environment on to the commands that it runs. MuJoCo reads from
        # the environment alone how it draws.
        assert "os.environ" not in text or path.name in ("compare.py", "table_model.py")


def test_settings_are_json():
    assert json.loads(json.dumps(to_dict(TrainConfig()))) == to_dict(TrainConfig())
