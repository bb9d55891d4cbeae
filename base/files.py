"""Files on disk: whole or not at all, and errors that a user can read. Standard library only.

Everything that the project writes goes through `replacing`: a temporary file next to the target,
fsync, rename. A crash, a full disk or Ctrl-C leaves the old file or the new file, never half a
file. Everything that it reads by hand goes through `read_text`, `read_json` or `existing`, which
raise `UserError`.

A file that another command reads carries its own checksum (`write_sealed`) and the checksums of
the files next to it (`listed`). A flipped byte is an error that names the file. A checksum shows
damage, not malice: whoever can write the file can write its checksum.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from base import system, text_files
from base.errors import UserError, os_error

OWN = re.compile(rb'"checksum": "([0-9a-f]{64})"')  # of a sealed JSON file
POINTER = b"version https://git-lfs"  # how a file begins that only says where the real file is
CLAIMED: dict = {}  # folder: the process that claimed it, and its open lock file


def run(main) -> None:
    """Call a script's main() for the shell: a user's mistake is one line on stderr and exit status
    2.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A file's name may be no text, and a terminal may know ASCII only.
            stream.reconfigure(errors="backslashreplace")
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `generate.py | head` ends quietly
    try:
        leave(main())
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = str(os_error(error))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        leave(130)  # 128 + SIGINT, as shells report it
    except SystemExit as stop:
        leave(stop.code if isinstance(stop.code, int | None) else 1)
    print(f"error: {message}", file=sys.stderr)
    leave(2)


def leave(status: int | None) -> NoReturn:
    """sys.exit; under torchrun the process ends at once, without the interpreter's own end.

    DDP (torch 2.13) keeps threads of gloo after destroy_process_group. A thread that frees a Python
    tensor while the interpreter ends aborts the process (github.com/pytorch/pytorch/pull/179291): a
    process that had finished its work was seen to end with SIGABRT.
    """
    if os.getenv("TORCHELASTIC_RUN_ID") is None:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status or 0)


@contextlib.contextmanager
def replacing(path, mode: str = "wb"):
    """Open a temporary file next to `path`: fsync and rename it on success, remove it on failure.

    Text is UTF-8. Half a surrogate pair, from a file name that is no text, becomes an escape such
    as \\udc80, which JSON reads back unchanged. Raises UserError if the folder cannot be made or
    written, or if the disk is full.
    """
    path = Path(path)
    # Beside the target, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
        os.replace(temporary, path)
        system.sync_folder(path.parent)
    except OSError as error:
        raise os_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def opened(path, mode: str):
    """An open file. Text is written with \\n on every system: checksums are of bytes."""
    if "b" in mode:
        return open(path, mode)
    return open(path, mode, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path, value) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with replacing(path, "w") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def write_text(path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path, "w") as file:
        file.write(text)


def write_lines(path, records: list[dict]) -> None:
    """Write each record as a line of JSON, whole or not at all."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_text(path, "".join(lines))


def encoded(text: str) -> bytes:
    """The bytes that `write_text` writes."""
    return text.encode("utf-8", "backslashreplace")


def write_sealed(path, value: dict) -> None:
    """`write_json` with a last entry `checksum`: the SHA-256 of the text with zeros in its
    place.
    """
    zeros = "0" * 64
    text = json.dumps({**value, "checksum": zeros}, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(encoded(text)).hexdigest()
    before, _, after = text.rpartition(f'"checksum": "{zeros}"')
    write_text(path, f'{before}"checksum": "{digest}"{after}')


def read_sealed(path, what: str, do: str) -> dict:
    """`read_json` without the entry `checksum`. Raises UserError if the text does not match it."""
    value = read_json(path, what, do)
    raw = Path(path).read_bytes()
    if "checksum" in value:
        # The last entry is the file's own. A value inside may hold the same words.
        entries = list(OWN.finditer(raw))
        start, end = entries[-1].span(1) if entries else (0, 0)
        blanked = raw[:start] + b"0" * (end - start) + raw[end:]
        if hashlib.sha256(blanked).hexdigest().encode() != raw[start:end]:
            raise UserError(f"{path}, which was changed", "the file as it was written", do)
    return {name: entry for name, entry in value.items() if name != "checksum"}


def listed(folder, names) -> dict:
    """{name: {"bytes", "sha256"}} of files in a folder, for `check_files`."""
    table = {}
    for name in names:
        path = Path(folder) / name
        table[name] = {"bytes": path.stat().st_size, "sha256": file_digest(path).hex()}
    return table


def unlisted(table: dict) -> list[str]:
    """The names in a table of files whose size or checksum is missing."""
    return [
        name
        for name, about in table.items()
        if not isinstance(about, dict) or not {"bytes", "sha256"} <= about.keys()
    ]


def check_files(folder, table: dict, do: str) -> None:
    """Compare files with their sizes and checksums, on all cores.

    Raises UserError for a file that is missing or was changed.
    """

    def problem(item) -> str | None:
        path, about = inside(folder, item[0]), item[1]
        if not path.is_file():
            return f"no {path}"
        # A truncated file is found by its size, without reading it.
        size = path.stat().st_size
        if size != about["bytes"]:
            return f"{path}, which is damaged or truncated ({size} bytes, not {about['bytes']})"
        return None if file_digest(path).hex() == about["sha256"] else f"{path}, which was changed"

    with ThreadPoolExecutor() as pool:
        for trouble in pool.map(problem, table.items()):
            if trouble:
                raise UserError(trouble, f"the {len(table)} files as they were written", do)


def inside(folder, name: str, *, absolute: bool = False) -> Path:
    """The path of a file that a list names.

    absolute: allow absolute names, as in lists that this project wrote. Raises UserError if the
    name leads out of the folder.
    """
    # Path drops the folder in front of an absolute name: Path("a") / "/b" is /b. The anchor also
    # holds Windows' C: and \, which lead elsewhere and are not absolute.
    if ".." in Path(name).parts or "\0" in name or (Path(name).anchor and not absolute):
        raise UserError(
            f"the file name {name!r}, which leads out of {folder}",
            "a name inside that folder",
            "put the file there, and correct the list",
        )
    return Path(folder) / name


def python(*words) -> str:
    """A command line that runs python with these words, as a shell reads it: spaces are quoted."""
    return shlex.join(["python", *map(str, words)])


def existing(path, what: str, do: str) -> Path:
    """`path` as a Path if it exists. Raises UserError otherwise, with the two parts given."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"no {path}", what, do)
    return path


def read_text(path, what: str, do: str) -> str:
    """The text of a file: UTF-8 with or without a byte order mark, each line end as \\n.

    what, do: two parts of the error. Raises UserError if the file is missing, or if
    `text_files.pieces` refuses it.
    """
    return text_files.read(existing(path, what, do), what)


def is_pointer(path) -> bool:
    """Whether git-lfs left a pointer in the place of a file. False if it cannot be read."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(len(POINTER)) == POINTER
    return False


def read_json(path, what: str, do: str):
    """The JSON object in `path`. Raises UserError if it is missing or holds something else."""
    text = read_text(path, what, do)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # deep nesting raises the latter
        raise UserError(f"{path}, which is not JSON ({error})", what, do) from error
    if not isinstance(value, dict):
        raise UserError(f"{path}, which holds no JSON object", what, do)
    return value


def writable_folder(path) -> Path:
    """Make the folder `path` and prove that it can be written, before any long work starts."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{os.getpid()}.probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise os_error(error, path) from error
    return path


def claim(folder) -> Path:
    """`writable_folder`; no other process can claim the folder until this process ends.

    The lock is the operating system's. It ends with the process, however the process ends, and
    worker processes do not inherit it. Raises UserError if another process holds it.
    """
    folder = writable_folder(folder)
    path, key = folder / ".lock", folder.resolve()
    owner, file = CLAIMED.get(key, (None, None))
    if (
        owner == os.getpid()
        and path.exists()
        and os.fstat(file.fileno()).st_ino == path.stat().st_ino
    ):
        return folder  # closing a second handle of it would end the lock
    file = open(path, "ab")  # noqa: SIM115 - it stays open as long as the lock
    try:
        system.lock(file)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise UserError(
            f"another process that writes into {folder}",
            "one at a time",
            "wait until it ends, or choose another --out",
        ) from error
    except OSError:
        pass  # a file system without locks
    CLAIMED[key] = os.getpid(), file
    for half in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
        with contextlib.suppress(OSError):
            half.unlink()
    return folder


def newest(patterns: list[str], folder=".") -> Path | None:
    """The most recently written file under `folder` that matches one of the glob `patterns`, or
    None.
    """
    paths = [path for pattern in patterns for path in Path(folder).glob(pattern)]
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)


def sha256(data: bytes) -> str:
    """The first 16 hex characters of SHA-256: they tell files apart and are short enough to
    read.
    """
    return hashlib.sha256(data).hexdigest()[:16]


def file_digest(path) -> bytes:
    """SHA-256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # hashlib.file_digest is not in the Python 3.10 of a Jetson
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.digest()


def ask_git(*words: str) -> str:
    """What git says about this source tree."""
    here = Path(__file__).parent.parent
    command = ["git", *words]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@functools.cache  # asking git takes two processes, which is too slow for each save
def git_revision() -> str:
    """The commit of this source tree, with `+` if it has uncommitted changes, or `unknown`."""
    try:
        revision = ask_git("rev-parse", "--short", "HEAD")
        changed = ask_git("status", "--porcelain", "-uno")
        return revision + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
