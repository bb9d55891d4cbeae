"""Feed every reader with damaged and invented input until enough was seen. Only success or a clean error may come out.

    python tests/hostile/fuzz/run.py --inputs 100000 --seed 0
    python tests/hostile/fuzz/run.py --reader checkpoint --seed 0 --first 4711 --inputs 1     # one input again, with its traceback

Prints a table of counts by reader, and every other exception with the command that repeats it; exits with 1 if there was one.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT)]

import torch

from tests.hostile.fuzz.readers import READERS, World, once


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--inputs", type=int, default=1000, help="over all readers, in turns of equal time"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first input of each reader"
    )
    parser.add_argument("--reader", choices=READERS)
    parser.add_argument("--minutes", type=float, default=600, help="stop after so many")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.fsync = lambda handle: (
        None
    )  # what is read is the question here, not what survives a power cut
    root, began = (
        Path(
            tempfile.mkdtemp(
                prefix="fuzz_",
                dir=next((place for place in ("/dev/shm",) if os.access(place, os.W_OK)), None),
            )
        ),
        time.time(),
    )
    (root / "world").mkdir()
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        world = World(root / "world")
    names = [args.reader] if args.reader else list(READERS)
    read, refused, spent, crashes = (
        dict.fromkeys(names, 0),
        dict.fromkeys(names, 0),
        dict.fromkeys(names, 0.0),
        {},
    )
    stop = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda *_: stop.append(1)
        )  # the table of what was seen is printed all the same
    while (
        not stop
        and sum(read.values()) + sum(refused.values()) < args.inputs
        and time.time() - began < 60 * args.minutes
    ):
        name = min(names, key=spent.get)
        number, clock = args.first + read[name] + refused[name], time.perf_counter()
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                good = once(
                    world, name, random.Random(f"{args.seed} {name} {number}"), root / "one"
                )
        except BaseException as error:  # a panic in Rust is no Exception
            good, last = False, traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            if (name, place) not in crashes:
                crashes[name, place] = number
                print(
                    f"CRASH: {name}: {place}: {str(error)[:200]!r}\n  again: --reader '{name}' --seed {args.seed} --first {number} --inputs 1",
                    file=sys.stderr,
                    flush=True,
                )
                if args.inputs == 1:
                    traceback.print_exc()
        read[name], refused[name] = read[name] + good, refused[name] + (not good)
        spent[name] += time.perf_counter() - clock
    shutil.rmtree(root, ignore_errors=True)
    print("| reader | inputs | read | refused |\n|---|---|---|---|")
    for name in names:
        print(f"| {name} | {read[name] + refused[name]:,} | {read[name]:,} | {refused[name]:,} |")
    print(
        f"| all, seed {args.seed} | {sum(read.values()) + sum(refused.values()):,} | {sum(read.values()):,} | {sum(refused.values()):,} |"
    )
    print(f"{len(crashes)} kinds of crash; {time.time() - began:.0f} s")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
