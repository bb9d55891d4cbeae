"""Errors that a user can read: found, expected, what to do. Standard library only."""

import errno


class UserError(Exception):
    """A mistake that the user can correct: what was found, what was expected, what to do next."""

    def __init__(self, found: str, expected: str, do: str):
        # Only line ends are joined: a file's name may hold two spaces.
        lines = f"found {found}; expected {expected}; {do}".splitlines()
        super().__init__(" ".join(line.strip() for line in lines))
        self.parts = found, expected, do

    def __reduce__(self):
        return UserError, self.parts  # it comes back whole from a worker process


def os_error(error: OSError, path=None) -> UserError:
    """What the operating system refused, in three parts."""
    path = path or error.filename or "the output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(
            f"no room left to write {path}",
            "enough free space there",
            "free some space or choose another --out",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(
            f"{path}, which may not be accessed ({error.strerror})",
            "permission to read and write it",
            "change its permissions or choose another path",
        )
    return UserError(
        f"{path}: {error.strerror or error}", "a usable path", "check the path and try again"
    )
