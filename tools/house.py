"""Measure the house: how a checkout's files, lines, functions and README compare with the budgets.

Reads   the Python files outside tests/, and README.md, of a checkout that git tracks
Writes  a Markdown table to the screen; a second folder becomes a second column

This checkout, in a second:
    python -m tools.house
Two checkouts side by side:
    python -m tools.house ../before .
"""

import ast
import io
import re
import subprocess
import tokenize
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from base import files, flags
from base.files import UserError

WIDTH = 100  # characters of the longest line
LONGEST = 50  # lines of the longest function


@dataclass
class Source:
    """One Python file. code: the numbers of its lines of code, without comments and docstrings."""

    path: Path
    lines: list[str]
    nodes: int
    code: set[int]
    comments: int
    functions: list[int]


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("folders", nargs="*", default=["."], help="checkouts (default: this one)")
    return parser.parse_args(argv)


def tracked(root: Path) -> list[Path]:
    """The files that git tracks in `root`, relative to it. Raises UserError without git."""
    # Git knows the files of the project; runs and environments lie in the folder too.
    done = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{root}, which git does not know", "a git checkout", "name another folder")
    return [Path(line) for line in done.stdout.splitlines() if (root / line).exists()]


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines of all docstrings."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            lines |= set(range(first.lineno, first.end_lineno + 1))
    return lines


def read(path: Path) -> Source:
    """Count what one file holds."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    code, comments = set(), 0
    layout = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    # tokenize, not a search for "#": a string may hold that sign.
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments += 1
        elif token.type not in layout:
            code |= set(range(token.start[0], token.end[0] + 1))
    code -= docstring_lines(tree)
    functions = [
        node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    # Load, Store and the like say nothing that a reader sees.
    nodes = sum(not isinstance(node, ast.expr_context) for node in ast.walk(tree))
    return Source(path, text.splitlines(), nodes, code, comments, functions)


def has_a_test(name: Path, tests: set[str]) -> bool:
    """Whether a module or script has a test file of its name, in the folder of its name."""
    mirrored = Path("tests", name.parent, f"test_{name.stem}.py")
    return mirrored.as_posix() in tests


def measure(root: Path) -> dict[str, str]:
    """The table's rows for one checkout: name -> figure."""
    paths = tracked(root)
    python = [path for path in paths if path.suffix == ".py"]
    names = [path for path in python if path.parts[0] != "tests" and path.name != "__init__.py"]
    tests = {path.as_posix() for path in python if path.parts[0] == "tests"}
    sources = [read(root / name) for name in names]
    lines = sum(len(source.lines) for source in sources)
    code = sum(len(source.code) for source in sources)
    # Empty lines would make the share of long lines look smaller.
    full = sum(bool(line.strip()) for source in sources for line in source.lines)
    wide = sum(len(line) > WIDTH for source in sources for line in source.lines)
    functions = [length for source in sources for length in source.functions]
    readme = (root / "README.md").read_text(encoding="utf-8")
    return {
        "entries in the root": f"{len({path.parts[0] for path in paths})}",
        "Python files in the root": f"{sum(len(name.parts) == 1 for name in names)}",
        "Python files in the largest folder": f"{max(Counter(n.parent for n in names).values())}",
        "Python files, lines": f"{len(names)}, {lines:,}",
        f"lines over {WIDTH} characters": f"{wide} ({100 * wide / full:.1f}%)",
        "syntax-tree nodes per code line": f"{sum(s.nodes for s in sources) / code:.1f}",
        "comments per 100 lines": f"{100 * sum(s.comments for s in sources) / lines:.1f}",
        f"functions over {LONGEST} lines": f"{sum(length > LONGEST for length in functions)}",
        "longest file, lines": f"{max(len(source.lines) for source in sources)}",
        "README: words": f"{len(readme.split()):,}",
        "README: table lines": f"{len(re.findall(r'^[|]', readme, re.MULTILINE))}",
        "modules without a test of their name": f"{sum(not has_a_test(n, tests) for n in names)}",
    }


def main(argv=None):
    folders = [Path(folder) for folder in parse_args(argv).folders]
    for folder in folders:
        files.existing(folder / "README.md", "a checkout with a README.md", "name its folder")
    columns = [measure(folder) for folder in folders]
    print("| " + " | ".join(["", *map(str, folders)]) + " |")
    print("|---" * (len(folders) + 1) + "|")
    for row in columns[0]:
        print("| " + " | ".join([row, *(column[row] for column in columns)]) + " |")


if __name__ == "__main__":
    files.run(main)
