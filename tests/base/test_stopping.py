"""A key or a signal stops a robot, and everything is put back afterwards."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from base import stopping
from base.stopping import stops
from tests.making.sources import ROOT


@pytest.mark.posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops(number):
    before = signal.getsignal(number)
    reasons = []
    with stops(reasons.append):
        os.kill(os.getpid(), number)
        time.sleep(0.05)
    assert reasons == [signal.Signals(number).name]
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    "keys, stopped", [(["x", "", " "], True), (["x", "\n"], True), (["x"], False)]
)
def test_space_and_enter_stop(monkeypatch, keys, stopped):
    ended, reasons, left = threading.Event(), [], list(keys)

    def pressed():
        if not left:
            ended.set()
            return ""
        return left.pop(0)

    monkeypatch.setattr(stopping, "pressed", pressed)
    stopping.watch(reasons.append, ended)
    assert reasons == (["a key was pressed"] if stopped else [])


CODE = """
import time
from base.stopping import stops
reasons = []
with stops(reasons.append):
    print("ready", flush=True)
    while not reasons:
        time.sleep(0.05)
print(reasons[0], flush=True)
"""


@pytest.mark.posix
def test_a_key_on_a_terminal_stops():
    import pty

    mine, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=terminal, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            os.write(mine, b"x ")
            assert process.stdout.readline() == "a key was pressed\n"
        finally:
            process.kill()
    os.close(mine)
    os.close(terminal)
