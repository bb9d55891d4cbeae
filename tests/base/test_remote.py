"""A maker behind a server: the same chunks as the maker itself, and errors of one line."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

pytest.importorskip("msgpack", reason="pip install -r requirements-server.txt")
pytest.importorskip("websockets", reason="pip install -r requirements-server.txt")
from websockets.sync.server import serve

from base import wire
from base.driving import DriveConfig, Driver
from base.errors import UserError
from base.remote import Calling, RemoteMaker, plain_facts
from tests.making.served import LENGTH, SEEN, Steady, facts_of, served


def calling(address, **more) -> Calling:
    return Calling(**({"server": address, "server_timeout": 5.0} | more))


@contextlib.contextmanager
def asked(address, plain=None, **more):
    with contextlib.closing(RemoteMaker(calling(address, **more), plain)) as maker:
        yield maker


@pytest.mark.parametrize("frames", [1, 3])
def test_chunks_are_the_makers_own_to_the_bit(frames):
    facts = facts_of(frames=frames)
    own = Steady(facts)
    with served(facts) as (_, address), asked(address) as maker:
        assert (maker.length, maker.frames, maker.absolute) == (LENGTH, frames, False)
        assert maker.about["sees"] == "state"
        assert maker.begin("a dinosaur", 7) == own.begin("a dinosaur", 7) == ["dinosaur"]
        earlier = [SEEN] * (frames - 1)
        for prefix in (None, np.full((2, 4), 0.123, np.float32)):
            ours, theirs = maker.make(SEEN, earlier, prefix), own.make(SEEN, earlier, prefix)
            assert (ours.actions == theirs.actions).all() and ours.doubt == theirs.doubt
            assert (ours.places == theirs.places).all()


def test_it_drives():
    with served() as (_, address), asked(address) as maker:
        driver = Driver(maker, DriveConfig(execute=2, delay=1))
        driver.begin("go")
        assert all(driver.next(SEEN).shape == (4,) for _ in range(8))


def test_a_server_that_comes_back_goes_on_with_the_episode():
    facts = facts_of()
    with served(facts) as (service, address):
        maker = RemoteMaker(calling(address))
        maker.begin("go", 5)
        first = maker.make(SEEN, [], None)
    with served(facts, port=service.port):
        again = maker.make(SEEN, [], None)
        assert maker.reconnects == 1 and (again.actions == first.actions).all()
    with served(facts_of(length=9), port=service.port), pytest.raises(UserError, match="another"):
        maker.make(SEEN, [], None)
    maker.close()


def test_a_server_that_is_gone_is_one_line_in_time():
    with served() as (_, address):
        maker = RemoteMaker(calling(address, server_timeout=1.0))
        maker.begin("go", 0)
    clock = time.monotonic()
    with pytest.raises(UserError, match="no policy at") as error:
        maker.make(SEEN, [], None)
    assert time.monotonic() - clock < 4 and "\n" not in str(error.value)


def test_a_late_answer_is_not_the_next_one():
    with served() as (_, address), asked(address, server_timeout=0.5) as maker:
        maker.begin("sleep", 1)
        with pytest.raises(UserError, match="no answer"):
            maker.make(SEEN, [], None)
        time.sleep(1.5)  # the policy is free again
        maker.begin("go", 9)
        assert np.allclose(maker.make(SEEN, [], None).actions, 0.09 + 0.028)


def test_wrong_keys_addresses_and_robots(tmp_path):
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_text("a" * 20)
    other.write_text("b" * 20)
    with served(key_file=str(key)) as (_, address):
        with asked(address, server_key=str(key)) as maker:
            maker.begin("go", 0)
            with pytest.raises(UserError, match="no things"):
                maker.make({"state": SEEN["state"]}, [], None)
            with pytest.raises(UserError, match="8 numbers"):
                maker.make(SEEN | {"state": np.zeros(3)}, [], None)
            assert maker.make(SEEN, [], None).actions.shape == (LENGTH, 4)
        for wrong in (None, str(other)):
            with pytest.raises(UserError, match="refuses the key"):
                RemoteMaker(calling(address, server_key=wrong))
    for address in ("http://127.0.0.1:1", "ws://", "ws://127.0.0.1:0", "ws://127.0.0.1:x"):
        with pytest.raises(UserError) as error:
            RemoteMaker(calling(address, server_timeout=1.0))
        assert "\n" not in str(error.value)


def test_a_port_that_says_nothing():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UserError, match="no policy at"):
            port = silent.getsockname()[1]
            RemoteMaker(calling(f"ws://127.0.0.1:{port}", server_timeout=0.5))


@contextlib.contextmanager
def openpi(answer):
    """A server as openpi's: no facts, and answers made by `answer`."""
    heard = []

    def handle(connection):
        connection.send(wire.pack({"any": "thing"}))
        for message in connection:
            heard.append(wire.unpack(message))
            reply = answer(heard[-1])
            connection.send(reply if isinstance(reply, bytes | str) else wire.pack(reply))

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}", heard
        server.shutdown()
        thread.join(10)


IMAGES = {"state": SEEN["state"], "image": np.zeros((9, 9, 3), np.uint8)}


def plain(length=4):
    return plain_facts(Calling(server_length=length), "table", (4, 8), "front")


def test_a_plain_openpi_server():
    actions = np.linspace(-1.5, 1, 40).reshape(10, 4)
    names = "image=cam,prompt=text"
    with openpi(lambda _: {"actions": actions}) as (address, heard):
        with pytest.raises(UserError, match="--server_length"):
            RemoteMaker(calling(address))
        with asked(address, plain(), server_names=names) as maker:
            assert maker.begin("go", 0) == []
            made = maker.make(IMAGES, [], None)
            # Actions beyond 1 are not cut here: limits are kept where they are counted.
            assert np.allclose(made.actions, actions[:4])
            assert set(heard[-1]) == {"observation/state", "cam", "text"}
            with pytest.raises(UserError, match="keeps none"):
                maker.make(IMAGES, [], np.zeros((2, 4), np.float32))
        with asked(address, plain(12)) as maker, pytest.raises(UserError, match="12 or more"):
            maker.begin("go", 0)
            maker.make(IMAGES, [], None)


@pytest.mark.parametrize(
    "reply, part",
    [
        ("Traceback:\n  File x\nKeyError: 'front'\n", "KeyError: 'front'"),
        ("", "an error"),
        (b"\xc1", "extension"),
        ([1], "no dict"),
        ({}, "finite"),
        ({"actions": [1, 2]}, "finite"),
        ({"actions": np.full((4, 4), np.nan)}, "finite"),
        ({"actions": np.zeros((4, 3))}, "4 numbers"),
        ({"actions": np.zeros(4)}, "4 numbers"),
    ],
)
def test_odd_answers_are_one_line(reply, part):
    with openpi(lambda _: reply) as (address, _), asked(address, plain()) as maker:
        maker.begin("go", 0)
        with pytest.raises(UserError, match=part) as error:
            maker.make(IMAGES, [], None)
        assert "\n" not in str(error.value)
