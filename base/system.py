"""What differs between Linux, macOS and Windows, in one place. Standard library only.

Windows has no fcntl and no resource, and opens no folders. Nothing else in the project asks which
system it runs on.
"""

import os
import re
import sys
from pathlib import Path

MIB = 2**20


def sync_folder(folder) -> None:
    """Wait until the names of a folder's files are on the disk: a rename must survive a power cut.

    Windows opens no folders, and writes names to the disk itself: there, nothing is done.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(file) -> None:
    """Lock an open file until it is closed or the process ends, however the process ends.

    Raises BlockingIOError or PermissionError if another process holds the lock. A system without
    locks locks nothing.
    """
    try:
        import fcntl
    except ImportError:
        lock_on_windows(file)
    else:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_on_windows(file) -> None:
    """`lock` with Windows' own locks: of the first byte, which need not be there."""
    try:
        import msvcrt
    except ImportError:
        return
    file.seek(0)
    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]


def peak_mib(*, children: bool = False) -> float | None:
    """The most memory in MiB that this process has held; None where the system does not say it.

    children: the largest of the processes that it started and that have ended, in its place.
    """
    # ru_maxrss also counts what the parent process held when it forked this one; VmHWM does not.
    status = Path("/proc/self/status")
    if status.exists() and not children:
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if peak:
            return int(peak[1]) / 2**10
    try:
        import resource
    except ImportError:
        return None
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    unit = 1 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(who).ru_maxrss * unit / MIB


def memory_text(mib: float | None) -> str:
    """`peak_mib` for people."""
    return "not measured on this system" if mib is None else f"{mib:,.0f} MiB"


def understand_colours() -> None:
    """Let an old Windows terminal read colours and the clearing of the screen."""
    if os.name == "nt":
        os.system("")  # any command: it switches the terminal's mode, which Python does not
