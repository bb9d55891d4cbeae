"""Folders: every file is either listed or counted, whatever links and suffixes there are."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.images import list_images
from base.listing import files_below, matching, once


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def listed(folder: Path, *suffixes: str, used=()) -> list[str]:
    listing = files_below(folder, suffixes, used)
    return [path.relative_to(folder).as_posix() for path in listing.paths]


def test_links_to_folders_are_followed(tmp_path):
    make(tmp_path / "a", "1.txt", "deep/2.txt")
    make(tmp_path / "b", "3.TXT", "deep/4.Txt")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "file.txt").symlink_to(tmp_path / "b" / "3.TXT")
    found = ["1.txt", "deep/2.txt", "file.txt", "more/3.TXT", "more/deep/4.Txt"]
    assert listed(tmp_path / "a", ".txt") == found
    (tmp_path / "link").symlink_to(tmp_path / "a")  # the folder itself may be a link
    assert listed(tmp_path / "link", ".txt") == found


def test_a_loop_of_links_ends(tmp_path):
    """A folder that is reached twice is listed once, under its own name."""
    make(tmp_path, "a/1.txt", "b/2.txt")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "A").symlink_to(tmp_path / "b")  # sorted before b
    assert listed(tmp_path, ".txt") == ["a/1.txt", "b/2.txt"]
    # A glob follows a loop until the system forbids it; each file is taken once.
    assert once(tmp_path.glob("**/*.txt")) == [tmp_path / "a/1.txt", tmp_path / "b/2.txt"]
    again = [tmp_path / "a/1.txt", tmp_path / "a/self/1.txt", tmp_path / "a/up/b/2.txt"]
    assert once(again) == [tmp_path / "a/1.txt", tmp_path / "a/up/b/2.txt"]


def test_what_is_left_out_is_counted(tmp_path, capsys):
    make(tmp_path, "1.txt", "2.md", "3.md", "4", "d/5.json", "._6.txt", ".git/7.txt", "8.jpg")
    (tmp_path / "9.txt").symlink_to(tmp_path / "nowhere")
    listing = files_below(tmp_path, [".txt"], used=[".jpg"])
    assert [path.name for path in listing.paths] == ["1.txt"]
    counts = {".md": 2, ".json": 1, "hidden": 2, "broken links": 1, "without a suffix": 1}
    assert listing.left_out == counts
    listing.report()
    line = capsys.readouterr().err
    assert "1 files taken, 7 left out: 2 " in line and "2 .md" in line and "the first: " in line
    files_below(tmp_path / "d", [".json"]).report()
    assert capsys.readouterr().err == ""  # nothing is said of a folder that is taken as a whole


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_closed_folder_is_counted(tmp_path):
    make(tmp_path, "1.txt", "closed/2.txt")
    (tmp_path / "closed").chmod(0)
    listing = files_below(tmp_path, [".txt"])
    (tmp_path / "closed").chmod(0o700)
    assert listing.left_out == {"folders that cannot be read": 1}


NAMES = st.from_regex(r"\.?[ab]{1,2}(\.(txt|TXT|md|tar\.gz))?", fullmatch=True)


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=12))
@settings(max_examples=40, deadline=None)
def test_every_file_is_listed_or_counted(tmp_path_factory, paths):
    folder = tmp_path_factory.mktemp("folder")
    for parts in paths:
        path = folder.joinpath(*parts)
        if not path.exists() and all(not above.is_file() for above in path.parents):
            make(folder, path.relative_to(folder).as_posix())
    listing = files_below(folder, [".txt"])
    every = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    shown = [path for path in every if not any(part.startswith(".") for part in path.parts)]
    hidden = {
        Path(*path.parts[: index + 1])
        for path in every
        for index, part in enumerate(path.parts)
        if part.startswith(".") and not any(up.startswith(".") for up in path.parts[:index])
    }
    wanted = {path for path in shown if path.suffix.lower() == ".txt"}
    assert {path.relative_to(folder) for path in listing.paths} == wanted
    assert listing.left_out.total() == len(shown) - len(wanted) + len(hidden)


def test_names_that_fit_a_pattern(tmp_path):
    make(tmp_path, "a.csv", "B.CSV", "._a.csv", "c.tsv", "below/d.csv", "e.csv/f")
    assert [path.name for path in matching(tmp_path, "*.csv")] == ["B.CSV", "a.csv"]
    names = [path.name for path in matching(tmp_path, "*.Tsv", "a*")]
    assert names == ["a.csv", "c.tsv"]


def test_images_behind_a_link_are_found(tmp_path, capsys):
    make(tmp_path / "gallery", "p0.jpg", "notes.txt")
    make(tmp_path / "elsewhere", "p1.JPG", "q/p2.png", ".thumbnails/p3.jpg")
    (tmp_path / "gallery" / "more").symlink_to(tmp_path / "elsewhere")
    names = [path.name for path in list_images(tmp_path / "gallery")]
    assert names == ["p1.JPG", "p2.png", "p0.jpg"]
    assert "1 .txt, 1 hidden" in capsys.readouterr().err
    list_images(tmp_path / "gallery", used=(".txt",))
    assert "2 left out" not in capsys.readouterr().err
