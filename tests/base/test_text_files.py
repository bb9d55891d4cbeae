"""People's text files: read as UTF-8, or refused in a line that says what they are."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import threading
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from base import text_files
from base.errors import UserError

STORY = "Ann had a red hen.\nThe hen saw a cat.\n"


def written(tmp_path, content: bytes):
    """The path of a file that holds the bytes."""
    path = tmp_path / "a file.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Linux", "Windows", "old Mac"])
def test_the_same_text_wherever_it_was_saved(tmp_path, monkeypatch, mark, end):
    path = written(tmp_path, mark + STORY.replace("\n", end).encode())
    for size in (1 << 20, 1, 3):  # a chunk may end inside \r\n or inside the mark
        monkeypatch.setattr(text_files, "CHUNK", size)
        assert text_files.read(path) == STORY


@given(text=st.text(st.characters(exclude_categories=["Cs"])), size=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_as_python_reads_it(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("text") / "x.txt"
    path.write_bytes(b"; " + text.encode())  # no text begins like another kind of file then
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "CHUNK", size)
        assert text_files.read(path) == path.read_text(encoding="utf-8-sig")


def test_mojibake_and_odd_characters_stay(tmp_path):
    text = "wasnâ€™t \x00 \u2028 \x85 a \ufeff b"
    assert text_files.read(written(tmp_path, text.encode())) == text


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", STORY)
    return buffer.getvalue()


def saved_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


@pytest.mark.parametrize(
    "content, kind",
    [
        (gzip.compress(STORY.encode(), mtime=0), "a gzip file"),
        (zipped(), "a zip file"),
        (bz2.compress(STORY.encode()), "a bzip2 file"),
        (bz2.compress(b""), "a bzip2 file"),
        (lzma.compress(STORY.encode()), "an xz file"),
        (b"PAR1\x15\x04\x15\x10PAR1", "a parquet file"),
        (b"ARROW1\0\0", "an Arrow file"),
        (saved_array(), "a numpy array"),
        (pickle.dumps([STORY]), "a pickle"),
        (pickle.dumps({"a": 1}, 2), "a pickle"),
        (b"%PDF-1.7\n", "a PDF document"),
        (picture(), "an image"),
        (POINTER, "a pointer of git-lfs"),
        (STORY.encode("utf-16"), "UTF-16"),
        (STORY.encode("utf-16-le"), "UTF-16LE"),
        (STORY.encode("utf-16-be"), "UTF-16BE"),
        (STORY.encode("utf-32"), "UTF-32"),
        ("猫は".encode("utf-16"), "UTF-16"),
    ],
)
def test_other_kinds_are_named(tmp_path, content, kind):
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=f"a file.txt, which is (in )?{kind}"):
        text_files.read(path)


def test_a_text_that_only_looks_odd_is_read(tmp_path):
    for text in ("BZh is no word", "PAR1 of 3", "Rar!", "a\0b", "PK", "Version https", "\0\0\0a"):
        assert text_files.read(written(tmp_path, text.encode())) == text


ENCODED = [
    ("Le café était fermé, très triste.", "cp1252", "WINDOWS-1252"),
    ("“quoted” isn’t it", "cp1252", "WINDOWS-1252"),
    ("naïve über Straße größer", "latin-1", "WINDOWS-1252"),
    ("Привет, как дела? Это кошка.", "cp1251", "WINDOWS-1251"),
    ("Привет, как дела? Это кошка.", "koi8_r", "KOI8-R"),
    ("猫はマットの上に座った。", "shift_jis", "SHIFT_JIS"),
    ("猫はマットの上に座った。", "euc_jp", "EUC-JP"),
    ("고양이가 매트 위에 앉았다.", "euc_kr", "EUC-KR"),
    ("一只猫坐在垫子上。它很高兴！", "gb18030", "GB18030"),
    ("一隻貓坐在墊子上。", "big5", "BIG5"),
]


@pytest.mark.parametrize("text, encoding, name", ENCODED)
def test_the_line_and_the_likely_encoding_are_said(tmp_path, monkeypatch, text, encoding, name):
    path = written(tmp_path, b"plain\r\nwords\r\n" + text.encode(encoding))
    with pytest.raises(UserError, match=rf"a file.txt .* in line 3 \(byte \d+\); {name} is likely"):
        text_files.read(path)
    with pytest.raises(UserError, match=f"iconv -f {name} -t UTF-8 '.*a file.txt' > new.txt"):
        text_files.read(path)
    monkeypatch.setattr(text_files, "CHUNK", 4)  # the place is right in later chunks too
    with pytest.raises(UserError, match=r"in line 3 "):
        text_files.read(path)


@pytest.mark.parametrize("text", ["né ", "Привет ", "猫は ", "一只猫。", "고양이 "])
def test_a_damaged_byte_in_a_utf8_text(tmp_path, text):
    path = written(tmp_path, text.encode() * 20 + b"\n\xff" + text.encode() * 20)
    with pytest.raises(
        UserError, match="in line 2 .*the other letters are UTF-8; .* mend that line"
    ):
        text_files.read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_read_once(tmp_path):
    """A shell's <(zcat x.gz) can be opened only once."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[STORY.encode()])
    writer.start()
    assert text_files.read(path) == STORY
    writer.join()


def test_a_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="Is a directory|may not be accessed"):
        text_files.read(tmp_path)
