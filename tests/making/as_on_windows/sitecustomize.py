"""Put this folder on PYTHONPATH, and Python on Linux behaves like Python on Windows in these ways.

No fcntl and no resource. Folders cannot be opened. A file that this process holds open cannot be
replaced or removed. Text that is opened without a word on it is cp1252, and its lines end in \\r\\n.
New processes are spawned.
"""

import builtins
import io
import multiprocessing
import os
import sys

for name in ("fcntl", "resource"):
    sys.modules[name] = None
real = {name: getattr(os, name) for name in ("open", "replace", "rename", "unlink", "remove")}
real_open = io.open


def open_handle(path, flags, *more, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real["open"](path, flags, *more, **named)


def held(path) -> bool:
    """Whether this process holds the file open, or mapped into its memory."""
    path = os.path.realpath(path)
    if not os.path.isfile(path):
        return False
    handles = []
    for number in os.listdir("/proc/self/fd"):
        try:
            handles.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    with real_open("/proc/self/maps", encoding="utf-8") as file:
        return path in handles or f"{path}\n" in file.read()


def refusing(name: str):
    def refuse(*paths, **named):
        for path in paths:
            if "dir_fd" not in named and held(path):
                raise PermissionError(13, "used by another process", str(path))
        return real[name](*paths, **named)

    return refuse


def open_text(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *more):
    if "b" not in mode and isinstance(file, str | os.PathLike):
        encoding = encoding or "cp1252"
        if newline is None and set(mode) & set("wax+"):
            newline = "\r\n"
    return real_open(file, mode, buffering, encoding, errors, newline, *more)


def wide_open(*words, **named):
    return open_text(*words, **named) if set(named) <= KNOWN else real_open(*words, **named)


KNOWN = {"file", "mode", "buffering", "encoding", "errors", "newline"}
os.open = open_handle
for name in ("replace", "rename", "unlink", "remove"):
    setattr(os, name, refusing(name))
builtins.open = io.open = wide_open
multiprocessing.set_start_method("spawn")
