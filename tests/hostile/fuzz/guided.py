"""As run.py, but led by what the readers' code did with the inputs before: coverage-guided, by atheris.

    pip install atheris                                        # where it installs; nothing else needs it
    python tests/hostile/fuzz/guided.py --reader templates --inputs 100000 --seed 1

Stops at the first input that ends in anything but success or a clean error, shows its traceback, and leaves it in crash-….
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT)]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in [
        *ROOT.glob("*.py"),
        *ROOT.glob("[a-su-z]*/*.py"),
        *ROOT.glob("text/*.py"),
        *ROOT.glob("tools/*.py"),
    ]
)

try:
    import atheris
except ImportError:
    sys.exit(
        "error: found no atheris; expected the coverage-guided fuzzer; pip install atheris, or use tests/hostile/fuzz/run.py"
    )

with atheris.instrument_imports(include=MODULES):
    from tests.hostile.fuzz import readers


class FromBytes(random.Random):
    """Choices read off the fuzzer's bytes, and zeros when they are spent: a changed byte is a changed choice."""

    def __init__(self, raw: bytes):
        self.raw = atheris.FuzzedDataProvider(raw)
        super().__init__(0)

    def seed(self, *given) -> None:
        pass

    def getrandbits(self, count: int) -> int:
        return self.raw.ConsumeUInt(-(-count // 8)) & ((1 << count) - 1)

    def random(self) -> float:
        return self.getrandbits(32) / 2**32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reader", choices=readers.READERS, required=True)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1, help="0 draws one")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="fuzz_"))
    (root / "world").mkdir()
    world = readers.World(root / "world")
    readers.torch.set_num_threads(1)
    atheris.Setup(
        [sys.argv[0], f"-runs={args.inputs}", f"-seed={args.seed}", "-max_len=512", "-timeout=60"],
        lambda raw: readers.once(world, args.reader, FromBytes(raw), root / "one") and None,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
