"""Acting in closed loop: figures in a file, controls, delays, wrong flags."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

import run_policy
from base.files import UserError
from robot.film import Film
from tests.making.sources import ROOT

FEW = ["--episodes", "1", "--splits", "val,twins"]


def run(root, *more):
    run_policy.main(["--checkpoint", str(root / "policy" / "best.pt"), *FEW, *more])


@pytest.mark.parametrize("control", ["none", "no_words", "no_image", "swapped"])
def test_figures_go_into_a_file(robot_world, tmp_path, control):
    path = tmp_path / "figures.json"
    run(robot_world, "--json", str(path), "--control", control)
    found = json.loads(path.read_text())
    assert list(found["splits"]) == ["val", "twins"]
    figures = found["splits"]["val"]["all"]
    assert figures["episodes"] == 1 and 0 <= figures["end"] <= figures["ever"] <= 1
    assert figures["ms_per_chunk"] > 0
    assert found["settings"]["control"] == control


def test_the_same_seed_gives_the_same_episodes(robot_world, tmp_path, capsys):
    outputs = []
    for _ in range(2):
        run(robot_world, "--draw", "--calls", "2", "--order", "random")
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_a_page_keeps_a_few_clips_of_each_split(robot_world, tmp_path, capsys):
    page = tmp_path / "page.html"
    try:
        Film(32).close()
    except UserError as error:
        pytest.skip(f"no OpenGL here: {error}")
    run(robot_world, "--episodes", "2", "--html", str(page), "--clips", "1")
    assert "clips of 2 of 4 episodes" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == 2 and "sees&nbsp;state" in text


def test_a_page_without_opengl_is_refused_before_the_episodes(robot_world, tmp_path):
    page = tmp_path / "page.html"
    arguments = ["--checkpoint", str(robot_world / "policy" / "best.pt"), "--html", str(page)]
    surroundings = {**os.environ, "MUJOCO_GL": "disable"}
    command = [sys.executable, str(ROOT / "run_policy.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    assert done.returncode == 2 and done.stdout == "" and not page.exists()
    assert len(done.stderr.splitlines()) == 1 and "no OpenGL" in done.stderr


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--execute", "9"], "at most 8"),
        (["--splits", "vall"], "val"),
        (["--control", "nothing"], "no_words"),
        (["--checkpoint", "missing.pt"], "train_policy.py"),
    ],
)
def test_wrong_flags(robot_world, flags, part):
    with pytest.raises((UserError, SystemExit), match=part if "--control" not in flags else None):
        run(robot_world, *flags)


def test_an_order_of_ones_own(robot_world, capsys):
    run(robot_world, "--instruction", "raise the red star")
    written = capsys.readouterr()
    assert "does not know: raise" in written.err
    assert "| val | pick | 1 |" in written.out
    with pytest.raises(UserError, match="'fly to the moon'"):
        run(robot_world, "--instruction", "fly to the moon")


@pytest.fixture
def server(robot_world):
    """A server of the policy: its address."""
    pytest.importorskip("msgpack", reason="pip install -r requirements-server.txt")
    pytest.importorskip("websockets", reason="pip install -r requirements-server.txt")
    import serve_policy
    from base import facts
    from base.serving import Service, Serving, in_thread

    own = serve_policy.Served(checkpoint=str(robot_world / "policy" / "best.pt"))
    maker, kinds = serve_policy.open_checkpoint(own)
    with in_thread(Service(maker, facts.of_maker(maker, kinds), Serving(port=0))) as service:
        yield f"ws://127.0.0.1:{service.port}"


def test_the_policy_elsewhere_does_the_same(robot_world, server, tmp_path, capsys):
    delay = ["--delay", "1"]
    run(robot_world, "--json", str(tmp_path / "here.json"), *delay)
    there = ["--server", server, "--json", str(tmp_path / "there.json"), *FEW, *delay]
    run_policy.main(there)
    here, other = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("here", "there"))
    assert here["episodes"] == other["episodes"]
    assert other["settings"]["server"] == server


@pytest.mark.parametrize(
    "more, part",
    [
        (["--say"], "--say with --server"),
        (["--calls", "2"], "--calls with --server"),
        (["--checkpoint", "a.pt"], "--checkpoint with --server"),
    ],
)
def test_what_the_server_decides(server, more, part):
    with pytest.raises(UserError, match=part):
        run_policy.main(["--server", server, *more])


def test_a_server_of_another_robot(tmp_path):
    pytest.importorskip("msgpack", reason="pip install -r requirements-server.txt")
    pytest.importorskip("websockets", reason="pip install -r requirements-server.txt")
    from base.scaling import Scaling
    from tests.making.served import facts_of, served

    for changed, part in (
        ({"scaling": Scaling.none(6, 6)}, "actions of 4 numbers"),
        ({"world": "crane"}, "'crane'"),
    ):
        with served(facts_of(**changed)) as (_, address), pytest.raises(UserError, match=part):
            run_policy.main(["--server", address, *FEW])


def test_at_meta_world_a_policy_has_nothing_to_say(metaworld_robot):
    with pytest.raises(UserError, match="--say at Meta-World"):
        run_policy.main(["--checkpoint", str(metaworld_robot / "policy" / "best.pt"), "--say"])


def test_a_bundle_does_what_its_checkpoint_does(robot_world, policy_bundled, tmp_path):
    found = []
    for flag, name in (
        ("--checkpoint", policy_bundled.checkpoint),
        ("--bundle", policy_bundled.bundle),
    ):
        path = tmp_path / f"{flag[2:]}.json"
        run_policy.main([flag, str(name), *FEW, "--calls", "2", "--json", str(path)])
        found.append(json.loads(path.read_text())["episodes"])
    names = ("text", "ever", "end", "steps")
    ours, theirs = ([[each[name] for name in names] for each in episodes] for episodes in found)
    assert ours == theirs
    for more in (["--draw"], ["--say"], ["--checkpoint", "best.pt"]):
        with pytest.raises(UserError, match=f"{more[0]} with --bundle"):
            run_policy.main(["--bundle", str(policy_bundled.bundle), *more])
