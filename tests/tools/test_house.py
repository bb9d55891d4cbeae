"""The figures of a checkout that is small enough to count by hand."""

import subprocess

import pytest

from base.files import UserError
from tools import house

MODULE = '''"""A docstring is no code."""

import math  # a reason


def area(radius: float) -> float:
    """Neither is this."""
    return math.pi * radius**2
'''


@pytest.fixture
def checkout(tmp_path):
    """A module with a test of its name, a script without, and a README with a table."""
    (tmp_path / "room").mkdir()
    (tmp_path / "tests" / "room").mkdir(parents=True)
    (tmp_path / "room" / "circle.py").write_text(MODULE)
    (tmp_path / "tests" / "room" / "test_circle.py").write_text("")
    (tmp_path / "wide.py").write_text("x = " + "1 + " * 30 + "1\n")
    (tmp_path / "README.md").write_text("Three words here\n\n| a |\n|---|\n")
    for words in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_the_table_is_the_count_by_hand(checkout):
    rows = house.measure(checkout)
    assert rows["entries in the root"] == "4"
    assert rows["Python files in the root"] == "1"
    assert rows["Python files, lines"] == "2, 9"
    assert rows["lines over 100 characters"] == "1 (16.7%)"  # of six lines that are not blank
    assert rows["comments per 100 lines"] == "11.1"
    assert rows["functions over 50 lines"] == "0"
    assert rows["README: table lines"] == "2"
    assert rows["modules without a test of their name"] == "1"


def test_docstrings_comments_and_blank_lines_are_no_code(checkout):
    source = house.read(checkout / "room" / "circle.py")
    assert source.code == {3, 6, 8} and source.comments == 1 and source.functions == [3]


def test_two_checkouts_are_two_columns(checkout, capsys):
    house.main([str(checkout), str(checkout)])
    assert "| README: table lines | 2 | 2 |" in capsys.readouterr().out


def test_a_folder_without_git_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("")
    with pytest.raises(UserError, match="git"):
        house.main([str(tmp_path)])
