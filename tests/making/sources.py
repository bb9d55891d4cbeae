"""What files and commands the project has: read from the folders, never listed by hand."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# A module imports from rooms with a lower number, and from its own room.
FLOORS = {
    "base": 0,
    "worlds": 1,
    "show": 1,
    "model": 2,
    "diffusion": 2,
    "net": 3,
    "loop": 4,
    "text": 5,
    "caption": 5,
    "robot": 5,
    "image": 5,
    "edge": 6,
    "tools": 7,
}
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if path.stem not in FLOORS)
ROOMS = [name for name in FLOORS if (ROOT / name).is_dir()]
SOURCES = sorted(
    [*ROOT.glob("*.py"), *(path for room in ROOMS for path in ROOT.glob(f"{room}/*.py"))]
)
NAMES = [path.relative_to(ROOT).as_posix() for path in SOURCES]
TOOLS = sorted(
    path.stem for path in ROOT.glob("tools/*.py") if "def main(" in path.read_text(encoding="utf-8")
)


COMMANDS = [*SCRIPTS, *(f"tools.{name}" for name in TOOLS)]  # modules with a main(argv)


def command_line(name: str) -> list[str]:
    """The words after `python` that run a command: its file, or -m and its module."""
    return ["-m", name] if name.startswith("tools.") else [f"{name}.py"]
