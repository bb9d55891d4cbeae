"""The commands of a demo: their words, how they continue, and how they run.

A command is one of the scripts with its flags, as a user would type it. Each runs in a process of
its own, so its memory is its own too.
"""

import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
PAUSE = 0.2  # seconds between two looks at processes that run side by side
PATIENCE = 20.0  # seconds in which a training that was told to stop may save
LAST = 15  # lines of a failed command's output that are shown

Command = list[str]


def words(script: str, /, **flags: object) -> Command:
    """A command: a script or `tools.NAME`, then --name value for each flag.

    True: a flag without a value. None: no flag.
    """
    command = ["-m", script] if script.startswith("tools.") else [script]
    for name, value in flags.items():
        if value is None:
            continue
        command.append(f"--{name}")
        if value is not True:
            command.append(str(value))
    return command


def script_of(command: Command) -> str:
    """The module that a command runs, such as train_image or tools.world_page."""
    return command[1] if command[0] == "-m" else command[0].removesuffix(".py")


def said(command: Command) -> str:
    """A command as a user would type it."""
    return f"python {shlex.join(command)}"


def value_of(command: Command, flag: str) -> str | None:
    """The value of a flag, or None if the command does not have it."""
    return command[command.index(flag) + 1] if flag in command else None


def resumed(command: Command) -> Command:
    """The command; a training that was stopped continues at its last save.

    It keeps the number of steps that it had, so --minutes is left out.
    """
    out = value_of(command, "--out")
    is_training = script_of(command).startswith("train")
    if not (is_training and out and (Path(out) / "resume.pt").exists()):
        return command
    if "--minutes" in command:
        first = command.index("--minutes")
        command = [*command[:first], *command[first + 2 :]]
    return [*command, "--resume"]


def placed(path) -> Path:
    """A path that also means the same file for a tool, which runs in the project's folder."""
    return Path(path) if Path.cwd() == ROOT else Path(path).absolute()


def started(command: Command) -> dict:
    """What starts a command: this Python, with the script by its whole path, and its folder."""
    if command[0] == "-m":
        return {"args": [sys.executable, *command], "cwd": ROOT}
    return {"args": [sys.executable, str(ROOT / command[0]), *command[1:]]}


def run(command: Command) -> None:
    """Print and run a command. If it fails, raise SystemExit with its own status."""
    print(f"\n$ {said(command)}", flush=True)  # before the script writes
    done = subprocess.run(**started(command))
    # The script has said what is wrong; a traceback would hide it.
    if done.returncode:
        raise SystemExit(done.returncode)


# ---- side by side


@dataclass
class Running:
    """A command that runs, and the file of its output."""

    command: Command
    process: subprocess.Popen
    output: IO[bytes]
    path: Path
    clock: float


def begin(command: Command, path: Path) -> Running:
    """Print and start a command, whose output goes into the file `path`."""
    print(f"$ {said(command)}\n    output: {path}", flush=True)
    output = open(path, "ab")  # noqa: SIM115 (closed by `end`)
    process = subprocess.Popen(**started(command), stdout=output, stderr=subprocess.STDOUT)
    return Running(command, process, output, path, time.perf_counter())


def end(running: Running) -> None:
    """Say how long a command took. If it failed, show its last lines, and raise SystemExit."""
    running.output.close()
    status = running.process.returncode
    if status:
        lines = running.path.read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(lines[-LAST:]), file=sys.stderr)
        # A process that a signal ended has a negative status, which no shell reports.
        raise SystemExit(status if status > 0 else 128 - status)
    seconds = time.perf_counter() - running.clock
    print(f"    {script_of(running.command)}: {seconds:.0f} seconds", flush=True)


def stop(every: list[Running], told: bool) -> None:
    """End commands that still run. told: the terminal's Ctrl-C has told them already."""
    for running in every:
        if not told:
            running.process.terminate()
    for running in every:
        try:
            running.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()
        running.output.close()


@contextlib.contextmanager
def ending_with_sigterm() -> Iterator[None]:
    """SIGTERM ends this process as an exception does, so that what it started can be stopped."""

    def leave(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_side_by_side(queues: dict[str, list[Command]], folder: Path) -> None:
    """Run the commands of a queue one after another, and all queues at the same time.

    The output of a queue goes into folder/NAME.txt. A command is continued if it was stopped
    before. If a command fails, all others are stopped, and SystemExit has its status.
    """
    waiting = {name: list(queue) for name, queue in queues.items()}
    running: dict[str, Running] = {}
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    try:
        with ending_with_sigterm():
            while running or any(waiting.values()):
                for name, queue in waiting.items():
                    if queue and name not in running:
                        running[name] = begin(resumed(queue.pop(0)), folder / f"{name}.txt")
                time.sleep(PAUSE)
                for name in list(running):
                    if running[name].process.poll() is not None:
                        end(running.pop(name))
    except KeyboardInterrupt:
        told = True
        raise
    finally:
        stop(list(running.values()), told)
