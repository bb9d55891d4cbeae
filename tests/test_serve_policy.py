"""Serving as people do: chunks of a checkpoint over the wire, wrong flags, a port in use."""

import functools
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("msgpack", reason="pip install -r requirements-server.txt")
pytest.importorskip("websockets", reason="pip install -r requirements-server.txt")

import serve_policy
from base import facts
from base.errors import UserError
from base.remote import Calling, RemoteMaker
from base.serving import Service, Serving, in_thread
from net.chunks import ChunkConfig
from robot import policies
from robot.writer import TorchMaker
from tests.making.served import SEEN
from tests.making.sources import ROOT


def checkpoint(root) -> str:
    return str(root / "policy" / "best.pt")


def test_a_checkpoints_chunks_over_the_wire(robot_world):
    own = serve_policy.Served(checkpoint=checkpoint(robot_world), calls=2, order="confidence")
    maker, kinds = serve_policy.open_checkpoint(own)
    opened = policies.open_policy(own.checkpoint, torch.device("cpu"))
    here = TorchMaker(opened, ChunkConfig(calls=2, order="confidence"))
    service = Service(maker, facts.of_maker(maker, kinds), Serving(port=0))
    with in_thread(service):
        there = RemoteMaker(Calling(server=f"ws://127.0.0.1:{service.port}"))
        text = "please grab the purple dinosaur"
        assert there.begin(text, 1) == here.begin(text, 1) == ["dinosaur"]
        for prefix in (None, np.full((3, 4), 0.21, np.float32)):
            ours, theirs = here.make(SEEN, [], prefix), there.make(SEEN, [], prefix)
            assert (ours.actions == theirs.actions).all() and (ours.calls == theirs.calls).all()
            assert (ours.places == theirs.places).all() and ours.doubt == theirs.doubt
        there.close()


@pytest.mark.posix
def test_as_a_user_starts_and_ends_it(robot_world):
    command = [sys.executable, str(ROOT / "serve_policy.py"), "--port", "0"]
    command += ["--checkpoint", checkpoint(robot_world)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Tests that a shell started in the background ignore SIGINT, and so would the server.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = process.stderr.readline()
        assert line.startswith("serving at ws://127.0.0.1:")
        maker = RemoteMaker(Calling(server=line.split()[-1]))
        maker.begin("pick up the red star", 0)
        assert maker.make(SEEN, [], None).actions.shape == (maker.length, 4)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        maker.close()
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err and err.endswith("stopped\n")
    assert "it reads state, things, kinds" in out


@pytest.mark.parametrize(
    "more, part",
    [
        (["--checkpoint", "missing.pt"], "missing.pt"),
        (["--bundle", "b", "--checkpoint", "c"], "one of the two"),
        (["--order", "backwards"], "one of confidence"),
        (["--names", "a=b"], "one of state"),
        (["--key_file", "missing.key"], "missing.key"),
        (["--port", "70000"], "65535"),
    ],
)
def test_wrong_flags(robot_world, more, part):
    given = [] if "--checkpoint" in more else ["--checkpoint", checkpoint(robot_world)]
    with pytest.raises(UserError, match=part) as error:
        serve_policy.main([*given, *more])
    assert "\n" not in str(error.value)


def test_a_port_in_use_is_one_line(robot_world):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with pytest.raises(UserError, match=f"--port {port}"):
            serve_policy.main(["--checkpoint", checkpoint(robot_world), "--port", port])


@pytest.mark.parametrize("module", ["msgpack", "websockets"])
def test_a_missing_module_is_one_line(module):
    code = f"import sys; sys.modules[{module!r}] = None; import serve_policy as s; s.main([])"
    code = f"from base import files\ndef main():\n    {code.replace('; ', chr(10) + '    ')}\n"
    code += "files.run(main)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "requirements-server.txt" in done.stderr


def test_a_bundle_is_served_without_torch(policy_bundled):
    """In a process of its own, in which torch cannot be imported."""
    code = f"""
import sys
sys.modules["torch"] = None
import serve_policy
from base import facts
from base.remote import Calling, RemoteMaker
from base.serving import Service, Serving, in_thread
from tests.making.served import SEEN

maker, kinds = serve_policy.open_bundle(serve_policy.Served(bundle={str(policy_bundled.bundle)!r}))
service = Service(maker, facts.of_maker(maker, kinds), Serving(port=0))
with in_thread(service):
    there = RemoteMaker(Calling(server=f"ws://127.0.0.1:{{service.port}}"))
    assert there.begin("pick up the dinosaur", 0) == maker.begin("pick up the dinosaur", 0)
    prefix = there.make(SEEN, [], None).actions[:3]
    for given in (None, prefix):
        ours, theirs = maker.make(SEEN, [], given), there.make(SEEN, [], given)
        assert (ours.actions == theirs.actions).all() and (ours.places == theirs.places).all()
    there.close()
print("equal")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr
