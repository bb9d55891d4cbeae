"""A policy on another machine: a `base.driving.ChunkMaker` that asks a server.

The server is ours (serve_policy.py), which says what the policy is, or any openpi server, which
says nothing: then the robot says what it sees, and `--server_length` how long a chunk is.

Nothing waits for ever. A server that is gone is tried again for `--server_timeout` seconds; then
`make` raises UserError, and the next call tries again.

It needs `pip install -r requirements-server.txt`.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from base import flags, wire
from base.driving import Made
from base.errors import UserError
from base.facts import PROTOCOL, Facts
from base.flags import setting
from base.incoming import parse_names
from base.scaling import Scaling
from base.serving import read_key

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

LARGEST = 8 * wire.MEGABYTE  # bytes of an answer
PAUSE = 0.2  # seconds between two tries to connect
TRIES = 2  # of a request
NEED = "the address of serve_policy.py, such as ws://127.0.0.1:8000"
# The names of openpi's own examples.
OPENPI = {"state": "observation/state", "image": "observation/image"}
OPENPI |= {"image_wrist": "observation/wrist_image"}


@dataclass
class Calling:
    """A policy on another machine."""

    server: str | None = setting(None, "ask the policy at this address", metavar="ws://HOST:PORT")
    server_key: str | None = setting(None, "file with the server's key", metavar="FILE")
    server_timeout: float = setting(
        5.0, "seconds to wait for an answer, or for the server", above=0.0, at_most=600.0
    )
    server_length: int = setting(
        0, "actions per chunk of a server that does not say so", at_least=0, at_most=1000
    )
    server_names: str = setting(
        "", "names in such a server's observations: OURS=THEIRS, with commas between them"
    )

    def __post_init__(self):
        flags.check(self)


def plain_facts(calling: Calling, world: str, widths: tuple[int, int], cameras: str) -> Facts:
    """What to assume of a server that says nothing about its policy.

    widths: numbers of an action and of a state; actions are taken as they come. cameras: names.
    """
    return Facts(
        length=calling.server_length,
        frames=1,
        scaling=Scaling.none(*widths),
        absolute=False,
        sees="pixels",
        cameras=cameras.split(","),
        image_side=224,  # what openpi's servers expect
        kinds=1,
        world=world,
        tasks="",
        head="unknown",
        keeps_prefix=False,
    )


class RemoteMaker:
    """Chunks of a server's policy.

    plain: what to assume of a server that says nothing about itself; None refuses such a server.
    about: what the policy is, by the names of a bundle's `about` (base/policy_runner.py).
    """

    def __init__(self, calling: Calling, plain: Facts | None = None):
        self.calling, self.plain = calling, plain
        self.key = read_key(calling.server_key)
        self.theirs = OPENPI | parse_names(calling.server_names)
        self.stack = contextlib.ExitStack()  # holds the connection
        self.connection: ClientConnection | None = None
        self.order: tuple[str, int] | None = None  # of this episode, for a server that came back
        self.reconnects = 0
        self.facts, self.ours = self.open()
        self.length, self.frames = self.facts.length, self.facts.frames
        self.scaling, self.absolute = self.facts.scaling, self.facts.absolute
        names = ("head", "sees", "cameras", "image_side", "tasks", "world")
        self.about = {name: getattr(self.facts, name) for name in names}

    # --- a ChunkMaker --------------------------------------------------------------------------

    def begin(self, text: str, seed: int) -> list[str]:
        """Begin an episode. Of a server that is not ours, no word is known to be unknown."""
        self.order = text, seed
        if not self.ours:
            return []
        unknown = self.ask(self.beginning()).get("unknown")
        if not isinstance(unknown, list) or not all(isinstance(word, str) for word in unknown):
            raise wrong("no list of unknown words")
        return unknown

    def make(self, seen: dict, earlier: Sequence[dict], prefix: np.ndarray | None) -> Made:
        assert self.order is not None  # begin comes first
        keys = self.facts.reads()
        for key in keys:
            if key not in seen:
                raise UserError(
                    f"no {key} to show to the server's policy",
                    "all of " + ", ".join(keys),
                    "serve a policy for this robot",
                )
        if not self.ours:
            return self.plain_chunk(seen, prefix)
        message: dict = {key: np.asarray(seen[key]) for key in keys}
        message |= {"prompt": self.order[0], "seed": self.order[1], "more": True}
        if earlier:
            message["earlier"] = [{key: each[key] for key in keys} for each in earlier]
        if prefix is not None:
            message["frozen"] = prefix.astype(np.float32)
        return self.made_of(self.ask(message))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.stack.close()
        self.connection = None

    # --- answers -------------------------------------------------------------------------------

    def beginning(self) -> dict:
        assert self.order is not None
        return {"begin": True, "prompt": self.order[0], "seed": self.order[1]}

    def made_of(self, reply: dict) -> Made:
        """A chunk of a server of ours."""
        width = len(self.scaling.low)
        chunk = self.rows(reply.get("chunk"), "a chunk")
        if chunk.shape != (self.length, width):
            raise wrong(f"a chunk of the shape {chunk.shape}")
        places, calls = reply.get("places"), reply.get("calls")
        doubt = reply.get("doubt", {})
        if places is not None and self.rows(places, "places").shape != (2, 3):
            raise wrong("places of another shape")
        if calls is not None and self.rows(calls, "calls").shape != chunk.shape:
            raise wrong("calls of another shape")
        if not isinstance(doubt, dict) or not all(type(v) is float for v in doubt.values()):
            raise wrong("a doubt that is no number")
        return Made(chunk, places, calls, doubt)

    def plain_chunk(self, seen: dict, prefix: np.ndarray | None) -> Made:
        """A chunk of a server that knows actions only."""
        assert self.order is not None
        if prefix is not None:
            raise UserError(
                "actions that shall stay, and a server that keeps none",
                "--while_waiting wait or naive",
                "choose another --while_waiting, or serve with serve_policy.py",
            )
        message = {self.theirs.get(key, key): seen[key] for key in self.facts.reads()}
        message[self.theirs.get("prompt", "prompt")] = self.order[0]
        actions = self.rows(self.ask(message).get("actions"), "actions")
        width = len(self.scaling.low)
        if actions.ndim != 2 or actions.shape[1] != width or len(actions) < self.length:
            raise UserError(
                f"a server whose actions have the shape {actions.shape}",
                f"{self.length} or more rows of {width} numbers",
                "serve a policy for this robot, or lower --server_length",
            )
        low, high = self.scaling.low, self.scaling.high
        # Not `shrink`, which would cut: what is too large must be seen where limits are kept.
        return Made((2 * (actions[: self.length] - low) / (high - low) - 1).astype(np.float32))

    def rows(self, value, what: str) -> np.ndarray:
        """An array of finite numbers from an answer."""
        if not isinstance(value, np.ndarray) or not np.isfinite(value).all():
            raise wrong(f"{what} that are no finite numbers")
        return value

    # --- the connection ------------------------------------------------------------------------

    def ask(self, message: dict) -> dict:
        """The answer to a message. Raises UserError; the connection is opened again if need be."""
        from websockets.exceptions import ConnectionClosed

        packed = wire.pack(message)
        trouble = ""
        for _ in range(TRIES):
            if self.connection is None:
                self.reopen(begin=not message.get("begin"))
            try:
                return self.exchange(packed)
            except TimeoutError as error:
                # The late answer must not be taken for the answer to the next question.
                self.close()
                raise UserError(
                    f"no answer from {self.calling.server} in {self.calling.server_timeout:g} s",
                    "an answer in time",
                    "look at the server, or raise --server_timeout",
                ) from error
            except (ConnectionClosed, OSError) as error:
                trouble = str(error)[:160]
                self.close()
        raise UserError(
            f"the server {self.calling.server}, which closes the connection ({trouble})",
            "an answer",
            "look at the server's own lines",
        )

    def exchange(self, packed: bytes) -> dict:
        """Send a message and read its answer."""
        assert self.connection is not None
        self.connection.send(packed)
        reply = self.connection.recv(timeout=self.calling.server_timeout)
        if isinstance(reply, str):
            # openpi sends a traceback: its last line says what happened.
            lines = [line.strip() for line in reply.splitlines() if line.strip()] or ["an error"]
            line = lines[-1].removeprefix("error: ")
            raise UserError(
                f"an error at the server: {line[:400]}", "a chunk", "look at the server"
            )
        answer = wire.unpack(reply, LARGEST)
        if not isinstance(answer, dict):
            raise wrong("no dict")
        return answer

    def open(self) -> tuple[Facts, bool]:
        """Connect: what the server's policy is, and whether the server is ours."""
        wire.load()
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ImportError as error:
            raise wire.missing("websockets") from error
        address = str(self.calling.server)
        if not address.startswith(("ws://", "wss://")):
            raise UserError(f"--server {address}", NEED, "correct --server")
        wait = self.calling.server_timeout
        headers = {"Authorization": f"Api-Key {self.key}"} if self.key else None
        try:
            opening = connect(
                address,
                additional_headers=headers,
                compression=None,
                open_timeout=wait,
                close_timeout=min(wait, 1.0),
                max_size=LARGEST,
                proxy=None,  # what stands in the environment must not see a robot's images
            )
            self.connection = self.stack.enter_context(opening)
            first = self.connection.recv(timeout=wait)
        except (OSError, WebSocketException, ValueError) as error:  # TimeoutError is an OSError
            self.close()
            raise no_server(address, error) from error
        try:
            return self.introduced(wire.unpack(first) if isinstance(first, bytes) else None)
        except UserError:
            self.close()
            raise

    def introduced(self, told) -> tuple[Facts, bool]:
        """The facts from a server's first message."""
        if not isinstance(told, dict):
            raise wrong("no facts first")
        if told.get("protocol") == PROTOCOL:
            return Facts.from_dict(told), True
        if self.plain is None or not self.plain.length:
            raise UserError(
                f"the server {self.calling.server}, which does not say what its policy is",
                "serve_policy.py, or --server_length with the actions of its chunks",
                "add --server_length, for example 50",
            )
        return self.plain, False

    def reopen(self, begin: bool) -> None:
        """Connect again, for `server_timeout` seconds at most, and begin the episode again."""
        last = time.monotonic() + self.calling.server_timeout
        while True:
            try:
                facts, ours = self.open()
                break
            except UserError:
                if time.monotonic() + PAUSE > last:
                    raise
                time.sleep(PAUSE)
        if ours != self.ours or facts.to_dict() != self.facts.to_dict():
            self.close()
            raise UserError(
                f"another policy at {self.calling.server} than before",
                "the policy that the episode began with",
                "begin again",
            )
        self.reconnects += 1
        if begin and ours and self.order is not None:
            try:
                self.exchange(wire.pack(self.beginning()))
            except (OSError, UserError):
                self.close()
                raise


def wrong(found: str) -> UserError:
    return UserError(
        f"a server that answers with {found}", "an openpi server", "look at the server"
    )


def no_server(address: str, error: Exception) -> UserError:
    """Why nothing can be asked at an address, in one line."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return UserError(
            f"the server {address}, which refuses the key", "its key", "name it with --server_key"
        )
    if status == 503:
        return UserError(
            f"the server {address}, which has too many clients", "room", "end one, or wait"
        )
    reason = str(error) or type(error).__name__
    return UserError(f"no policy at {address} ({reason[:160]})", NEED, "start the server there")
