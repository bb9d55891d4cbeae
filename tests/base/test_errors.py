"""Errors in three parts, and the operating system's in words."""

import errno
import pickle

from base.errors import UserError, os_error


def test_an_error_has_three_parts_and_one_line():
    error = UserError("a\nb", "c", "d")
    assert str(error) == "found a b; expected c; d" and error.parts == ("a\nb", "c", "d")
    assert pickle.loads(pickle.dumps(error)).parts == error.parts


def test_a_path_in_an_error_keeps_its_spaces():
    assert str(UserError("no a  b.txt", "c", "d")) == "found no a  b.txt; expected c; d"


def test_what_the_system_refuses_is_said_in_words():
    error = os_error(OSError(errno.ENOSPC, "No space left", "x"))
    assert "no room left to write x" in str(error)
    assert "may not be accessed" in str(os_error(PermissionError(errno.EACCES, "no", "x")))
