"""From raw text to a folder: nothing lost, nothing twice, nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import data_prep
from base.files import UserError
from base.tokenizer import Tokenizer
from tests.making.corpus import SEPARATOR, make_data, write_corpus
from text.data import TextData

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "data")


def test_what_is_written_is_what_was_read(folder):
    """Both splits together are the corpus; copies of one text stay on one side; bytes are the raw text's."""
    texts = sorted(
        text.strip() for text in (folder.parent / "stories.txt").read_text().split(SEPARATOR)
    )
    sides = {}
    for split in ("train", "val"):
        rows = TextData(folder, split, 10_000)
        sides[split] = [rows.tokenizer.decode(document) for document in rows.whole_rows()]
        assert rows.meta["splits"][split]["bytes"] == sum(
            len(text.encode()) for text in sides[split]
        )
        first, last = rows.tokens[rows.offsets[:-1]], rows.tokens[rows.offsets[1:] - 1]
        assert (first == rows.tokenizer.bos).all() and (last == rows.tokenizer.eos).all()
    assert sorted(sides["train"] + sides["val"]) == texts
    assert not set(sides["train"]) & set(sides["val"]) and sides["val"]


def test_rerun_says_done_and_another_run_is_refused(folder, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    words = [
        "--input",
        str(folder.parent / "stories.txt"),
        "--out",
        str(folder),
        "--vocab_size",
        "300",
        "--val_fraction",
        "0.1",
    ]
    data_prep.main(words)
    assert "already done" in capsys.readouterr().out
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(UserError, match="other settings"):
        data_prep.main([*words, "--seed", "5"])


def test_same_seed_same_bytes_and_a_tokenizer_can_be_kept(folder, tmp_path):
    again = make_data(tmp_path / "again")
    assert all(
        (again / name).read_bytes() == (folder / name).read_bytes()
        for name in ("train.npy", "val_offsets.npy", "tokenizer.json")
    )
    kept = make_data(tmp_path / "kept", tokenizer=folder / "tokenizer.json", seed=4)
    assert (kept / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert (kept / "val.npy").read_bytes() != (folder / "val.npy").read_bytes()


def test_folders_globs_and_tiny_corpora(tmp_path):
    (tmp_path / "in").mkdir()
    write_corpus(tmp_path / "in" / "a.txt", 10)
    write_corpus(tmp_path / "in" / "b.txt", 12, seed=1)
    for number, source in enumerate((tmp_path / "in", tmp_path / "in" / "*.txt")):
        data_prep.main(
            [
                "--input",
                str(source),
                "--out",
                str(tmp_path / f"out{number}"),
                "--vocab_size",
                "260",
                "--max_documents",
                "20",
            ]
        )
        sizes = json.loads((tmp_path / f"out{number}" / "meta.json").read_text())["splits"]
        assert sizes["train"]["documents"] + sizes["val"]["documents"] == 20
    (tmp_path / "two.txt").write_text(f"one story{SEPARATOR}another story")
    data_prep.main(
        [
            "--input",
            str(tmp_path / "two.txt"),
            "--out",
            str(tmp_path / "two"),
            "--vocab_size",
            "300",
        ]
    )
    assert all(
        TextData(tmp_path / "two", split, 20).num_documents == 1 for split in ("train", "val")
    )


def test_a_tokenizer_that_changed_in_place_is_noticed(tmp_path):
    write_corpus(tmp_path / "in.txt", 20)
    words = [
        "--input",
        str(tmp_path / "in.txt"),
        "--out",
        str(tmp_path / "out"),
        "--tokenizer",
        str(tmp_path / "tokenizer.json"),
    ]
    (tmp_path / "tokenizer.json").write_text(Tokenizer.train(["aaaa bbbb"] * 9, 280).to_json())
    data_prep.main(words)
    (tmp_path / "tokenizer.json").write_text(Tokenizer.train(["the cat sat"] * 9, 280).to_json())
    with pytest.raises(UserError, match="other settings"):
        data_prep.main(words)


@pytest.mark.parametrize(
    "content, words, message",
    [
        (None, [], "no file for --input"),
        (b"", [], "no text in"),
        (f" \n{SEPARATOR}\n ".encode(), [], "no text in"),
        (b"only one story", [], "one document in"),
        (f"copy{SEPARATOR}copy".encode(), [], "one document in .* 2 times"),
        (f"good{SEPARATOR}".encode() + b"b\xffd", [], "no UTF-8 in line 1 .byte 18.; WINDOWS-1252"),
        (b"a<|endoftext|>b", ["--vocab_size", "259"], "at least 260"),
        (b"a<|endoftext|>b", ["--vocab_size", "65536"], "at most 65535"),
        (b"a<|endoftext|>b", ["--val_fraction", "1"], "a value below 1"),
        (b"a<|endoftext|>b", ["--separator", ""], "an empty --separator"),
        (b"a<|endoftext|>b", ["--tokenizer", "none.json"], "no none.json"),
        (b"a<|endoftext|>b", ["--vocabsize", "300"], "expected --vocab_size"),
    ],
)
def test_bad_input(tmp_path, content, words, message):
    if content is not None:
        (tmp_path / "in.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        data_prep.main(
            ["--input", str(tmp_path / "in.txt"), "--out", str(tmp_path / "out"), *words]
        )
    assert not list((tmp_path / "out").glob("[!.]*")) and not list((tmp_path / "out").glob(".*raw"))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Linux", "Windows", "old Mac"])
def test_the_same_data_wherever_the_text_was_saved(tmp_path, mark, end):
    """A byte order mark is no token, and every line end is \\n: all six folders hold the same data."""
    text = "".join(f"Ann {number}.\nA hen.\n\n" for number in range(30))
    for number in range(2):  # the mark of each file of a folder
        part = text.replace("Ann", f"Ann {number}").replace("\n", end)
        (tmp_path / f"{number}.txt").write_bytes(mark + part.encode())
    out = tmp_path / "out"
    data_prep.main(
        ["--input", str(tmp_path), "--out", str(out), "--separator", "\n\n", "--vocab_size", "280"]
    )
    rows = [TextData(out, split, 100) for split in ("train", "val")]
    texts = [row.tokenizer.decode(ids) for row in rows for ids in row.whole_rows()]
    wanted = [f"Ann {part} {number}.\nA hen." for part in range(2) for number in range(30)]
    assert sorted(texts) == sorted(wanted)


@pytest.mark.parametrize(
    "separator, message",
    [
        (r"\n\n", r"check --separator '\\\\n\\\\n': its backslash is a letter here; .* \$'\\n'$"),
        ("\n\n\n", r"check --separator '\\n\\n\\n'$"),
    ],
)
def test_a_separator_that_is_not_there_is_shown_as_it_was_read(tmp_path, separator, message):
    (tmp_path / "in.txt").write_text("one\n\ntwo\n\nthree")
    with pytest.raises(UserError, match=message):
        data_prep.main(
            ["--input", str(tmp_path / "in.txt"), "--out", str(tmp_path), "--separator", separator]
        )


@pytest.mark.posix
def test_a_full_disk_leaves_nothing(tmp_path):
    """A limit on file size stands in for the disk's end."""
    import resource

    write_corpus(tmp_path / "in.txt", 400)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "data_prep.py"),
            "--input",
            str(tmp_path / "in.txt"),
            "--out",
            str(tmp_path / "out"),
            "--vocab_size",
            "300",
        ],
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "no room left to write" in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
