"""Stopping a robot by hand: space or Enter on a terminal, or the signals of Ctrl-C and `kill`.

They are a convenience. An emergency stop is a switch that takes the power from the motors.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

KEYS = (" ", "\n", "\r")
POLL = 0.05  # seconds between two looks at the keyboard
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stops(stop: Callable[[str], None]) -> Iterator[None]:
    """While this is open, a key or a signal calls `stop` with its name."""
    ended = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            name = signal.Signals(number).name
            before[number] = signal.signal(number, handler(stop, name))
    with contextlib.ExitStack() as stack:
        if sys.stdin is not None and sys.stdin.isatty():
            stack.enter_context(single_keys())
            thread = threading.Thread(target=watch, args=(stop, ended), name="keys", daemon=True)
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for number, old in before.items():
                signal.signal(number, old)


def handler(stop: Callable[[str], None], name: str):
    def handle(number, frame):
        stop(name)

    return handle


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """Let the terminal give each key at once, and put it back as it was."""
    try:
        import termios
        import tty
    except ImportError:  # Windows gives single keys anyway
        yield
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def watch(stop: Callable[[str], None], ended: threading.Event) -> None:
    """Call `stop` at the first of KEYS."""
    while not ended.is_set():
        key = pressed()
        if key in KEYS:
            stop("a key was pressed")
            return


def pressed() -> str:
    """The key that is pressed within POLL seconds, or nothing."""
    try:
        import msvcrt
    except ImportError:
        import select

        ready, _, _ = select.select([sys.stdin], [], [], POLL)
        return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if ready else ""
    threading.Event().wait(POLL)
    return msvcrt.getwch() if msvcrt.kbhit() else ""  # type: ignore[attr-defined]
