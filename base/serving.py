"""A policy behind a websocket, as openpi's clients expect it.

The server sends the policy's facts first (base/facts.py). Then every binary message is an
observation (base/incoming.py), and every answer has `actions`, (T, A) in the robot's units, and
`server_timing`. A text message is an error of one line; the connection stays open, because
openpi's client raises an error and may send the next observation. `/healthz` answers OK.

Clients are strangers. Nobody gets in without the key, if there is one; browsers never get in, so a
web page cannot reach a server on its reader's machine. Messages, connections and waiting are
limited, and one chunk is made at a time, in a thread of its own.

It needs `pip install -r requirements-server.txt`.
"""

import asyncio
import contextlib
import copy
import hmac
import http
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import flags, wire
from base.driving import ChunkMaker
from base.errors import UserError, os_error
from base.facts import Facts
from base.flags import setting
from base.incoming import Asked, Reader, check_earlier, fault, not_read, parse_names

LOOPBACK = ("127.0.0.1", "::1", "localhost")
FAULTS = 20  # errors in a row after which a client is sent away
SHORTEST = 16  # characters of a key
LINES_PER_SECOND = 5


@dataclass
class Serving:
    """Where the policy is served, and to whom."""

    host: str = setting("127.0.0.1", "address to listen at; 0.0.0.0 is every network")
    port: int = setting(8000, "port; 0 takes a free port", at_least=0, at_most=65535)
    key_file: str | None = setting(
        None, "clients must send the key in this file, as `Authorization: Api-Key ...`"
    )
    names: str = setting("", "a client's own names: THEIRS=OURS, with commas between them")
    connections: int = setting(8, "clients at once", at_least=1, at_most=1000)
    megabytes: int = setting(8, "of the largest message", at_least=1, at_most=32)
    timeout: float = setting(
        10.0, "seconds in which a message must arrive, or be taken", above=0.0, at_most=3600.0
    )
    idle: float = setting(600.0, "seconds without a message", above=0.0, at_most=86400.0)

    def __post_init__(self):
        flags.check(self)


def read_key(path: str | None) -> str | None:
    """The key in a file, without the line's end. Raises UserError for a weak or odd key."""
    if path is None:
        return None
    try:
        key = Path(path).read_text(encoding="ascii").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, which is no ASCII text", "a key", "write another") from error
    except OSError as error:
        raise os_error(error, path) from error
    if len(key) < SHORTEST or not key.isprintable() or " " in key:
        raise UserError(
            f"{path}, whose key has {len(key)} characters",
            f"{SHORTEST} or more, in one word",
            'write one: python -c "import secrets; print(secrets.token_urlsafe())"',
        )
    return key


def coded(text: str) -> bytes:
    """A header's bytes, whatever they are."""
    return text.encode("utf-8", "surrogateescape")


class Notes:
    """Lines on stderr, a few per second: a client must not fill the disk."""

    def __init__(self):
        self.second, self.lines, self.left_out = 0, 0, 0

    def say(self, line: str) -> None:
        now = int(time.monotonic())
        if now != self.second:
            self.second, self.lines = now, 0
        self.lines += 1
        if self.lines > LINES_PER_SECOND:
            self.left_out += 1
            return
        more = f" ({self.left_out} lines left out before)" if self.left_out else ""
        self.left_out = 0
        print(line[:300] + more, file=sys.stderr, flush=True)


class Session:
    """A client's policy: from a message to its answer. maker: shared; its copy holds the order."""

    def __init__(self, maker: ChunkMaker, facts: Facts, reader: Reader, largest: int):
        self.maker, self.facts, self.reader = copy.copy(maker), facts, reader
        self.largest = largest
        self.text: str | None = None
        self.unread: list[str] = []
        self.last: float | None = None  # seconds of the last answer, in all

    def answer(self, message: bytes) -> bytes:
        """The answer to a message. Raises UserError for a fault of the client's."""
        began = time.perf_counter()
        asked = self.reader.read(wire.unpack(message, self.largest))
        self.unread = asked.unread
        clock = time.perf_counter()
        reply = self.begun(asked)
        if asked.seen:
            check_earlier(asked, self.facts)
            reply |= self.made(asked)
        timing = {"infer_ms": 1000 * (time.perf_counter() - clock)}
        if self.last is not None:
            timing["prev_total_ms"] = 1000 * self.last
        packed = wire.pack(reply | {"server_timing": timing})
        self.last = time.perf_counter() - began
        return packed

    def begun(self, asked: Asked) -> dict:
        """Begin an episode if the order is new, or if the client says so."""
        text = asked.text or self.text
        if text is None:
            raise fault("an observation without a prompt", "the order, as text")
        if not asked.begin and text == self.text:
            return {}
        unknown = self.maker.begin(text, asked.seed)
        self.text = text
        return {"unknown": unknown} if asked.begin else {}

    def made(self, asked: Asked) -> dict:
        """A chunk, and what else was asked for."""
        made = self.maker.make(asked.seen, asked.earlier, asked.prefix)
        if not np.isfinite(made.actions).all():
            raise UserError("a chunk with NaN", "finite numbers", "use another checkpoint")
        actions = self.facts.scaling.restore(made.actions).astype(np.float32)
        if not asked.more:
            # Not for everybody: openpi's ActionChunkBroker takes a row of every array.
            return {"actions": actions}
        rows = {"actions": actions, "chunk": made.actions.astype(np.float32)}
        parts = {"places": made.places, "calls": made.calls}
        return rows | {**parts, "doubt": {k: float(v) for k, v in made.doubt.items()}}


class Service:
    """Serves one policy. `run` it with asyncio; `stop` may be called from any thread.

    ready: set when the port is open. port: the port then. error: why it could not begin.
    """

    def __init__(self, maker: ChunkMaker, facts: Facts, serving: Serving):
        self.maker, self.facts, self.serving = maker, facts, serving
        self.key = read_key(serving.key_file)
        self.reader = Reader(facts, parse_names(serving.names))
        self.notes = Notes()
        self.ready = threading.Event()
        self.port = serving.port
        self.sessions: set[Session] = set()
        # One chunk at a time: the others wait in the executor's queue, one for each client.
        self.worker = ThreadPoolExecutor(1, "policy")

    async def run(self) -> None:
        """Serve until `stop`. Raises UserError if the port cannot be opened."""
        serve = load_server()
        self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        own = self.serving
        silent = logging.Logger("websockets of strangers", logging.CRITICAL + 1)
        try:
            server = await serve(
                self.handle,
                own.host,
                own.port,
                process_request=self.greet,
                origins=[None],  # a browser says where its page is from, a robot does not
                compression=None,  # openpi's; and a small message cannot become a large one
                max_size=own.megabytes * wire.MEGABYTE,
                max_queue=1,  # messages that wait in memory
                open_timeout=own.timeout,
                ping_interval=own.timeout,
                ping_timeout=own.timeout,
                close_timeout=own.timeout,
                logger=silent,
            )
        except OSError as error:
            raise UserError(
                f"--host {own.host} --port {own.port}, which cannot be opened "
                f"({error.strerror or error})",
                "a free port of this machine",
                "end what uses it, or choose another --port",
            ) from error
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            self.announce()
            self.ready.set()
            await self.stopping.wait()
        self.worker.shutdown(wait=False, cancel_futures=True)

    def announce(self) -> None:
        own = self.serving
        if own.host not in LOOPBACK and self.key is None:
            print(
                f"warning: everybody who reaches {own.host} may drive this policy: "
                "add --key_file, or --host 127.0.0.1",
                file=sys.stderr,
            )
        host = f"[{own.host}]" if ":" in own.host else own.host
        print(f"serving at ws://{host}:{self.port}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Ask a running service to end."""
        self.loop.call_soon_threadsafe(self.stopping.set)

    def greet(self, connection, request):
        """Before a connection becomes a websocket: /healthz, the key, and whether there is room."""
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self.key is not None:
            given = request.headers.get_all("Authorization")
            right = f"Api-Key {self.key}".encode()
            # The time of the comparison must not say how many letters were right.
            if len(given) != 1 or not hmac.compare_digest(coded(given[0]), right):
                self.notes.say("a client without the right key: refused")
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "wrong key\n")
        if len(self.sessions) >= self.serving.connections:
            self.notes.say(f"more than {self.serving.connections} clients: one refused")
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        return None

    async def handle(self, websocket) -> None:
        """One client, until it goes."""
        from websockets.exceptions import ConnectionClosed

        if len(self.sessions) >= self.serving.connections:  # several were greeted at once
            await websocket.close(1013, "too many clients")
            return
        largest = self.serving.megabytes * wire.MEGABYTE
        session = Session(self.maker, self.facts, self.reader, largest)
        self.sessions.add(session)
        try:
            await self.converse(websocket, session)
        except ConnectionClosed as closed:
            if closed.rcvd is None or closed.rcvd.code not in (1000, 1001):
                self.notes.say(f"a client went: {str(closed)[:120]}")
        except TimeoutError:
            self.notes.say("a client was too slow: closed")
            await websocket.close(1008, "too slow")
        finally:
            self.sessions.discard(session)

    async def converse(self, websocket, session: Session) -> None:
        """Facts, then an answer to each message."""
        await self.send(websocket, wire.pack(self.facts.to_dict()))
        faults, told = 0, False
        while faults < FAULTS:
            message = await self.receive(websocket)
            try:
                if isinstance(message, str):
                    raise fault("a text message", "msgpack in a binary message")
                reply = await self.loop.run_in_executor(self.worker, session.answer, message)
            except UserError as error:
                faults += 1
                self.notes.say(f"a client's fault: {error}")
                await self.send(websocket, f"error: {error}")
                continue
            except Exception as error:  # the policy's own: one client less, and the service goes on
                self.notes.say(f"internal error: {type(error).__name__}: {error}")
                await self.send(websocket, f"error: internal error ({type(error).__name__})")
                await websocket.close(1011, "internal error")
                return
            faults = 0
            if session.unread and not told:
                told = True
                self.notes.say(not_read(session.unread))
            await self.send(websocket, reply)
        await websocket.close(1008, "too many errors")

    async def receive(self, websocket) -> bytes | str:
        """A whole message. Raises TimeoutError for a client that sends its rest too slowly."""
        pieces = websocket.recv_streaming()
        first = await asyncio.wait_for(anext(pieces), self.serving.idle)
        joined = bytearray(first.encode() if isinstance(first, str) else first)

        async def rest() -> None:
            async for piece in pieces:
                joined.extend(piece.encode() if isinstance(piece, str) else piece)

        await asyncio.wait_for(rest(), self.serving.timeout)
        return "" if isinstance(first, str) else bytes(joined)

    async def send(self, websocket, message: bytes | str) -> None:
        """Raises TimeoutError for a client that does not read."""
        await asyncio.wait_for(websocket.send(message), self.serving.timeout)


def load_server():
    """websockets' `serve`. Raises UserError if a module is missing."""
    wire.load()
    try:
        from websockets.asyncio.server import serve
    except ImportError as error:
        raise wire.missing("websockets") from error
    return serve


@contextlib.contextmanager
def in_thread(service: Service):
    """Serve in a thread while the block runs: (service), whose `port` is open."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(service.run())
        except BaseException as error:
            failed.append(error)
            service.ready.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    service.ready.wait()
    if failed:
        raise failed[0]
    try:
        yield service
    finally:
        service.stop()
        thread.join(30)
