"""Files: whole or not at all, sealed, claimed; errors in three parts."""

import shlex

import pytest

from base import files
from base.files import UserError


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    files.write_text(path, "old")
    with pytest.raises(KeyError), files.replacing(path, "w") as file:
        file.write("half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_lines_of_json(tmp_path):
    files.write_lines(tmp_path / "x.jsonl", [{"a": "é"}, {"a": 2}])
    assert (tmp_path / "x.jsonl").read_text(encoding="utf-8") == '{"a": "é"}\n{"a": 2}\n'


def test_a_seal_notices_a_flipped_byte(tmp_path):
    """Anywhere but in the entry's own name: without it the file counts as one of an early version."""
    path = tmp_path / "x.json"
    files.write_sealed(path, {"a": 1, "checksum of b": "0" * 64})
    assert files.read_sealed(path, "x", "copy it") == {"a": 1, "checksum of b": "0" * 64}
    raw = path.read_bytes()
    name = range(raw.rindex(b'"checksum"'), raw.rindex(b'"checksum"') + len(b'"checksum"'))
    for place in set(range(len(raw))) - set(name):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(UserError):
            files.read_sealed(path, "x", "copy it")


def test_listed_files_are_compared(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    table = files.listed(tmp_path, ["a"])
    files.check_files(tmp_path, table, "copy it")
    assert files.unlisted(table) == [] and files.unlisted({"a": {"bytes": 3}, "b": 1}) == ["a", "b"]
    for content, message in ((b"abd", "was changed"), (b"ab", "damaged or truncated")):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(UserError, match=message):
            files.check_files(tmp_path, table, "copy it")
    (tmp_path / "a").unlink()
    with pytest.raises(UserError, match="no .*a;"):
        files.check_files(tmp_path, table, "copy it")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\0b"])
def test_no_name_leads_out_of_its_folder(tmp_path, name):
    with pytest.raises(UserError, match="leads out of"):
        files.inside(tmp_path, name)


def test_json_that_is_none(tmp_path):
    for text in ("{", "[1]", "[" * 5000):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError):
            files.read_json(tmp_path / "x.json", "a file", "mend it")


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert files.read_json(tmp_path / "x.json", "a file", "mend it") == {"a": 1}
    (tmp_path / "x.json").write_bytes('{"a": "é"}'.encode("cp1252"))
    with pytest.raises(UserError, match="x.json with bytes .* line 1 .*WINDOWS-1252 is likely"):
        files.read_json(tmp_path / "x.json", "a file", "mend it")


def test_a_printed_command_survives_any_path():
    words = ["train.py", "--data_dir", "my data/it's $HOME `x`", "--note", 'a "b"', 3]
    line = files.python(*words)
    assert shlex.split(line) == ["python", *map(str, words)]
    assert files.python("train.py", "--out", "run") == "python train.py --out run"


def test_a_claim_is_the_processs_own(tmp_path):
    (tmp_path / ".x.1.tmp").write_text("half of a killed process")
    assert files.claim(tmp_path) == files.claim(tmp_path) == tmp_path
    assert not (tmp_path / ".x.1.tmp").exists()


def test_the_newest_file(tmp_path):
    assert files.newest(["*.pt"], tmp_path) is None
    (tmp_path / "a.pt").write_text("")
    assert files.newest(["*.pt"], tmp_path).name == "a.pt"
