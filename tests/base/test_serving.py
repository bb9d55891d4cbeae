"""A server: openpi's protocol, and clients that are hostile, slow, many or gone."""

import asyncio
import contextlib
import http.client
import socket
import time

import numpy as np
import pytest

pytest.importorskip("msgpack", reason="pip install -r requirements-server.txt")
pytest.importorskip("websockets", reason="pip install -r requirements-server.txt")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from base import wire
from base.errors import UserError
from base.serving import FAULTS, Service, Serving, in_thread
from tests.making.served import ACTIONS, LENGTH, SEEN, Steady, facts_of, served

ASK = {**SEEN, "prompt": "go"}


@contextlib.contextmanager
def client(address, **more):
    with connect(address, compression=None, proxy=None, **more) as connection:
        connection.told = wire.unpack(connection.recv(timeout=10))
        yield connection


def ask(connection, message):
    connection.send(message if isinstance(message, bytes | str) else wire.pack(message))
    reply = connection.recv(timeout=10)
    return reply if isinstance(reply, str) else wire.unpack(reply)


@pytest.fixture(scope="module")
def server():
    with served() as (_, address):
        yield address


def test_facts_first_then_actions_in_the_robots_units(server):
    with client(server) as connection:
        assert connection.told == facts_of().to_dict()
        reply = ask(connection, ASK)
        assert set(reply) == {"actions", "server_timing"}
        # openpi's ActionChunkBroker takes row after row of every array.
        assert reply["actions"].shape == (LENGTH, ACTIONS)
        assert np.allclose(reply["actions"], 2 + 4 * 0.028)
        assert set(reply["server_timing"]) == {"infer_ms"}
        assert set(ask(connection, ASK)["server_timing"]) == {"infer_ms", "prev_total_ms"}


def test_more_is_for_those_who_ask(server):
    with client(server) as connection:
        begun = ask(connection, {"begin": True, "prompt": "a dinosaur", "seed": 3})
        assert begun["unknown"] == ["dinosaur"] and "actions" not in begun
        frozen = np.full((2, ACTIONS), 0.25, np.float32)
        reply = ask(connection, {**SEEN, "more": True, "frozen": frozen})
        assert (reply["chunk"][:2] == frozen).all()
        assert np.allclose(reply["chunk"][2:], 0.03 + 0.028)
        assert reply["places"].shape == (2, 3) and reply["doubt"] == {"nats": 0.5}


FAULTY = {
    "noise": (b"\xc1\xc1", "extension"),
    "a text": ("hello", "text message"),
    "no prompt": (SEEN, "prompt"),
    "objects": (
        b"\x81\xa5state\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\0\xc4\x05dtype\xa2|O"
        b"\xc4\x05shape\x91\0",
        "type",
    ),
    "a state of another robot": ({**ASK, "state": np.zeros(3)}, "8 numbers"),
    "a list": ([1, 2], "no dict"),
    "depth": (b"\x91" * 100_000, "levels"),
    "NaN": ({**SEEN, "prompt": "nan"}, "NaN"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_one_line_and_the_connection_goes_on(server, name):
    message, part = FAULTY[name]
    with client(server) as connection:
        reply = ask(connection, message)
        assert reply.startswith("error: found ") and part in reply and "\n" not in reply
        assert "actions" in ask(connection, ASK)


def test_who_makes_only_faults_is_sent_away(server):
    with client(server) as connection:
        for _ in range(FAULTS):
            ask(connection, b"\xc1")
        with pytest.raises(ConnectionClosed, match="too many errors"):
            connection.recv(timeout=10)


def test_a_fault_of_the_policy_ends_one_connection(server, capsys):
    with client(server) as connection:
        assert ask(connection, {**SEEN, "prompt": "break"}) == (
            "error: internal error (RuntimeError)"
        )
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=10)
    with client(server) as connection:
        assert "actions" in ask(connection, ASK)


def test_a_message_that_is_too_large():
    with served(megabytes=1) as (_, address):
        with client(address) as connection, pytest.raises(ConnectionClosed, match="1009"):
            ask(connection, b"\0" * 2_000_000)
        with client(address) as connection:
            assert "actions" in ask(connection, ASK)


def test_health_needs_no_key_and_a_policy_does(tmp_path):
    path = tmp_path / "key"
    path.write_text("k" * 20 + "\n")
    with served(key_file=str(path)) as (service, address):
        page = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
        page.request("GET", "/healthz")
        answer = page.getresponse()
        assert (answer.status, answer.read()) == (200, b"OK\n")
        for header in (None, "Api-Key wrong", "k" * 20, "Api-Key " + "k" * 19, "Api-Key k\xe9"):
            headers = {"Authorization": header} if header else None
            with pytest.raises(InvalidStatus, match="401"):
                connect(address, additional_headers=headers, proxy=None)
        with client(address, additional_headers={"Authorization": "Api-Key " + "k" * 20}) as right:
            assert "actions" in ask(right, ASK)


def test_a_web_page_never_gets_in(server):
    with pytest.raises(InvalidStatus, match="403"):
        connect(server, origin="http://127.0.0.1:8000", proxy=None)


def test_one_policy_at_a_time_and_at_most_so_many_clients():
    with served(connections=3) as (service, address), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client(address)) for _ in range(3)]
        with pytest.raises(InvalidStatus, match="503"):
            connect(address, proxy=None)
        for number, each in enumerate(clients):
            each.send(wire.pack({**ASK, "begin": True, "seed": number, "more": True}))
        for number, each in enumerate(clients):
            # Each has its own episode, though all share a policy.
            reply = wire.unpack(each.recv(timeout=10))
            assert np.allclose(reply["chunk"], 0.01 * number + 0.028)


def test_a_hundred_at_once():
    async def one(address):
        from websockets.asyncio.client import connect as dial

        try:
            async with dial(address, compression=None, proxy=None) as connection:
                await connection.recv()
                await connection.send(wire.pack(ASK))
                return "actions" in wire.unpack(await connection.recv())
        except (InvalidStatus, ConnectionClosed):
            return None

    async def many(address):
        return await asyncio.gather(*[one(address) for _ in range(100)])

    with served(connections=4) as (service, address):
        found = asyncio.run(many(address))
        assert found.count(True) >= 4 and found.count(False) == 0
        with client(address) as connection:
            assert "actions" in ask(connection, ASK)
        assert len(service.sessions) <= 1


def raw(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(sent)
    return connection


HELLO = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n",  # headers without an end
        HELLO + b"\x82\xfe\x10\x00" + b"\0" * 8,  # a frame of 4,096 bytes, of which 4 arrive
        HELLO + b"\x02\x84\0\0\0\0abcd",  # a first fragment, and no second
    ],
)
def test_slow_clients_are_sent_away(sent):
    with served(timeout=0.3) as (service, address):
        slow = raw(service.port, sent)
        clock = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            while slow.recv(4096):
                assert time.monotonic() - clock < 10
        slow.close()
        with client(address) as connection:
            assert "actions" in ask(connection, ASK)


def test_abrupt_ends_leave_nothing_behind():
    with served(connections=2) as (service, address):
        for _ in range(6):
            raw(service.port, HELLO + b"\x82\xfe\x10\x00").close()
            with contextlib.suppress(OSError, ConnectionClosed), client(address) as connection:
                connection.send(wire.pack(ASK))
                connection.socket.close()  # without a word, while the policy works
            for _ in range(100):
                if not service.sessions:
                    break
                time.sleep(0.02)
        assert not service.sessions
        with client(address) as connection:
            assert "actions" in ask(connection, ASK)


@pytest.mark.parametrize("host, port", [("127.0.0.1", None), ("192.0.2.1", 0), ("no.such.", 0)])
def test_a_port_that_cannot_be_opened(host, port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        serving = Serving(host=host, port=other.getsockname()[1] if port is None else port)
        service = Service(Steady(facts_of()), facts_of(), serving)
        with pytest.raises(UserError, match="which cannot be opened") as error, in_thread(service):
            pass
    assert "\n" not in str(error.value)


def test_everybody_is_warned_of(capsys):
    with served(host="0.0.0.0"):
        pass
    assert "warning: everybody who reaches 0.0.0.0" in capsys.readouterr().err


@pytest.mark.parametrize("key", [b"", b"short", b"two words of a key that is long", b"\xff" * 20])
def test_weak_keys_are_refused(tmp_path, key):
    path = tmp_path / "key"
    path.write_bytes(key)
    with pytest.raises(UserError):
        Service(Steady(facts_of()), facts_of(), Serving(key_file=str(path)))


def test_a_missing_key_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nothing"):
        Service(Steady(facts_of()), facts_of(), Serving(key_file=str(tmp_path / "nothing")))
