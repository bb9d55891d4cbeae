"""The sheet: widths, corners, and files that are the same bytes for the same drawing."""

import pytest

from show import sheet
from show.sheet import Sheet, corner_radius, towards, width_of


def test_widths():
    assert width_of("  ", 8.0) == 0 < width_of("word", 8.0) < width_of("longer word", 8.0)
    assert width_of("word", 16.0) == pytest.approx(2 * width_of("word", 8.0), rel=0.01)
    assert sheet.formula_width("$x^2$", 10) > sheet.formula_width("$x$", 10)


def test_corners():
    assert towards((10, 10), (10, 50), 7) == (10, 17)
    assert towards((10, 10), (0, 10), 7) == (3, 10)
    assert corner_radius((0, 0), (0, 100), (100, 100)) == 7
    assert corner_radius((0, 0), (0, 6), (100, 6)) == 3  # half of a short line


def test_text_shrinks_until_it_fits():
    page = Sheet(100, 50)
    page.text(50, 25, "a text that is far too wide", 9, within=40)
    assert page.axes.texts[0].get_fontsize() < 9


def test_the_same_drawing_is_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "DPI", 40)
    written = []
    for folder in ("one", "two"):
        page = Sheet(200, 80)
        page.box(10, 30, 60, 40, "title", "note")
        page.tokens(80, 40, ["a", "star", ""], ["known", "new", "mask"], 110)
        page.arrow((10, 10), (60, 10), (60, 25), dashed=True)
        page.formula(100, 15, "$x^2$", 8)
        (tmp_path / folder).mkdir()
        written.append([path.read_bytes() for path in page.save(tmp_path / folder / "page")])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"\x89PNG") and b">title</text>" in written[0][1]
