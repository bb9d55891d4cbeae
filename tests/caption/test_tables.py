"""Tables of captions: separators, columns by name, quotation marks, rows that give nothing."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from base.files import UserError
from caption import tables
from caption.collected import Collected
from tests.making.tables import check_no_loss, table


@pytest.fixture
def read(tmp_path):
    """read(text): what a table of this text gives."""

    def read_table(text: str) -> Collected:
        found = Collected("t", tmp_path)
        tables.read(tmp_path / "t", text, found)
        return found

    return read_table


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_separator_is_seen(read, mark, capsys):
    rows = [("image", "caption"), ("p0.jpg", "a dog"), ("p1.jpg", "two cats")]
    found = read("".join(mark.join(row) + "\n" for row in rows))
    assert found.photos == {"p0.jpg": (None, ["a dog"]), "p1.jpg": (None, ["two cats"])}
    assert tables.SEPARATORS[mark] in capsys.readouterr().err
    headless = read("".join(mark.join(row) + "\n" for row in rows[1:]))
    assert headless.photos == found.photos


@pytest.mark.parametrize(
    "text, photos",
    [
        # Flickr30k's table; a program's number next to each comment.
        (
            "image_name| comment_number| comment\np0.jpg| 0| A dog , big\np0.jpg| 1| one dog\n",
            {"p0.jpg": (None, ["A dog , big", "one dog"])},
        ),
        ("image\tsplit\tcaption\np0.jpg\tValidation\ta dog\n", {"p0.jpg": ("val", ["a dog"])}),
        (
            "file_name,split,caption_0,caption_1\np0.jpg,train,a dog,\np1.jpg,test,a,b\n",
            {"p0.jpg": ("train", ["a dog"]), "p1.jpg": ("test", ["a", "b"])},
        ),
        (",image,caption\n0,p0.jpg,a dog\n", {"p0.jpg": (None, ["a dog"])}),
        (
            'Unnamed: 0,raw,sentids,split,filename\n0,"[""a dog"", ""a cat""]",[1],test,p0.jpg\n',
            {"p0.jpg": ("test", ["a dog", "a cat"])},
        ),
        ("text,file_name\na dog,p0.jpg\n", {"p0.jpg": (None, ["a dog"])}),
        ('image, caption\np0.jpg, "a dog, big"\n', {"p0.jpg": (None, ["a dog, big"])}),
        ('"sep=;"\r\nimage;caption\r\np0.jpg;a dog\r\n', {"p0.jpg": (None, ["a dog"])}),
        ("photo,words\np0.jpg,a dog, big\n", {"p0.jpg": (None, ["a dog, big"])}),
        ("p0.jpg\t[MASK] in text\n", {"p0.jpg": (None, ["[MASK] in text"])}),
        ("image,caption,,\np0.jpg,a dog,,\n", {"p0.jpg": (None, ["a dog"])}),
        (
            "image,caption\np0.jpg,a dog,,\np1.jpg,a cat,,\n",
            {"p0.jpg": (None, ["a dog"]), "p1.jpg": (None, ["a cat"])},
        ),
        ("caption_id,image_id,id,caption\n7,p0,3,a dog\n", {"p0": (None, ["a dog"])}),
        # As numpy and pandas write a list; Python alone would join the two texts.
        ("image\tcaption\np0.jpg\t['a dog', 'a cat']\n", {"p0.jpg": (None, ["a dog", "a cat"])}),
    ],
)
def test_columns_are_found_by_name(read, text, photos):
    assert read(text).photos == photos


def test_quotation_marks_are_of_cells_or_of_speech(read):
    """pandas quotes whole cells. Flickr8k.token.txt has marks of speech."""
    quoted = 'image\tcaption\np0.jpg\t"a ""big"" dog"\np1.jpg\ta cat\np2.jpg\t"a\tb\nc"\n'
    assert [texts for _, texts in read(quoted).photos.values()] == [
        ['a "big" dog'],
        ["a cat"],
        ["a b c"],
    ]
    speech = 'p0.jpg#0\t" Stop " says a sign .\np1.jpg#0\t"Go"\np2.jpg#0\ta " big " dog\n'
    assert [texts for _, texts in read(speech).photos.values()] == [
        ['" Stop " says a sign .'],
        ['"Go"'],
        ['a " big " dog'],
    ]


@pytest.mark.parametrize(
    "text, left_out, first",
    [
        ("image,caption\np0.jpg,a dog\np1.jpg\n,orphan\np4.jpg,\n", 3, "line 3: 'p1.jpg' without"),
        # The known bad row of Flickr30k's results.csv: a pipe is missing.
        (
            "image_name| comment_number| comment\np0.jpg| 0| a dog\np1.jpg| 4   A dog runs\n",
            1,
            "line 3: 'p1.jpg' without a caption",
        ),
        (
            "image,caption,split\np0.jpg,a dog,val\np1.jpg,a dog, big,val\n",
            1,
            "line 3: 4 cells for 3",
        ),
        ("image,caption,split\np0.jpg,a dog,val\np1.jpg,a dog\n", 1, "line 3: 2 cells for 3"),
        ("image,caption\np0.jpg,a dog\nimage,caption\n", 1, "line 3: the names of the columns"),
        ("p0.jpg\ta dog\nand runs\t.\n", 1, "line 2: 'and runs' is no name of an image"),
        ("image,caption\np0.jpg,a dog\np1.jpg,['a' 'b']\n", 1, "line 3: 'p1.jpg' with a caption"),
        ('image,caption\np0.jpg,"a\ndog"\np1.jpg\n', 1, "line 4: 'p1.jpg'"),
    ],
)
def test_rows_that_give_nothing_are_counted(read, text, left_out, first, capsys):
    found = read(text)
    assert list(found.photos) == ["p0.jpg"] and found.left_out == left_out
    assert found.first.startswith(first)
    found.report()
    assert f"{left_out} of {left_out + 1} rows gave no image" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,kaption\n7,a dog\n", "with the columns 'id' 'kaption'"),
        ("audiocap_id,youtube_id,start_time,caption\n7,x,3,a dog\n", "'audiocap_id' 'youtube_id'"),
        ("image,title\np0,a dog\n", "with the columns 'image' 'title'"),
        ("nothing here\n", "with the first line 'nothing here', in which no comma"),
        ("a dog\tp0.jpg\n", "with the columns 'a dog' 'p0.jpg'"),
        ("p0.jpg\t0\ta dog\n", "line 1 is 'p0.jpg' '0' 'a dog'"),
        ("p0.jpg,0,a dog, big\np0.jpg,1,a cat\n", "more cells than the 2 columns image caption"),
        ("p0.jpg,a dog,train\np1.jpg,a dog, big,val\n", "more cells than the 2 columns"),
        ("p0.jpg,a dog,a hound\np1.jpg,a cat,a kitten\n", "more cells than the 2 columns"),
        ("image,caption\n0,p0.jpg,a dog\n1,p1.jpg,a cat\n", "line 2 is '0' 'p0.jpg' 'a dog'"),
        ("", "no caption in"),
        ("\n ,;\n", "no caption in"),
        ('p0.jpg,"a dog\np1.jpg,a cat\np2.jpg,"a bird, too"\n', "quotation mark out of place"),
        # Names without a suffix are known by their form.
        ('image,caption\n7,"a dog\n8,a cat"\n', "line 2 .a cell holds the name of another image"),
        ('image;caption;n\np7;"a dog\np8;a cat;3\np9;b";4\n', "holds the name of another image"),
        ('p0.jpg\t"a dog\np1.jpg\tcat"\n', "line 1 .a cell holds the name of another image"),
        (
            "image,split,caption\np0.jpg,val,a\n./p0.jpg,train,b\n",
            "p0.jpg of the split val and, at",
        ),
    ],
)
def test_a_table_that_is_not_understood_is_refused(read, text, message):
    with pytest.raises(UserError, match=message):
        read(text)


def test_lines_inside_quotation_marks_are_counted_and_shown(read, capsys):
    """Two marks without a partner look like a caption of two lines: the user decides."""
    found = read('image,caption\ndog,"a dog\ncat,a cat"\nbird,"a bird, big,\nbig\nbig"\n')
    assert found.photos["dog"] == (None, ["a dog cat,a cat"]) and found.lines_inside == 3
    shown = "3 lines stand inside quotation marks and were joined to the rows before them"
    assert f"{shown}; the first: line 2, with 'cat,a cat'" in capsys.readouterr().err
    read("image,caption\ndog,a dog\n")
    assert "stand inside" not in capsys.readouterr().err


def test_a_caption_that_was_cut_is_joined_and_said(read, capsys):
    """As before there were columns: commas without quotation marks, if the caption is last."""
    found = read("image,caption\np0.jpg,a dog,runs, fast\np1.jpg,a cat\n")
    assert found.photos["p0.jpg"] == (None, ["a dog,runs, fast"])
    assert "1 captions hold a comma without quotation marks" in capsys.readouterr().err


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.randoms(use_true_random=False))
def test_every_row_is_a_caption_or_counted_or_refused(tmp_path_factory, rng):
    """No row of an invented table is lost in silence, and no caption is made up."""
    look(rng, tmp_path_factory.getbasetemp())


def test_most_invented_tables_are_read(tmp_path):
    """The property above would hold for a reader that refuses everything. Written by a program,
    nearly all tables are read.
    """
    seen = [look(random.Random(seed), tmp_path) for seed in range(400)]
    quoted = [read for read, made in seen if made.quoted]
    assert sum(quoted) / len(quoted) > 0.9
    assert sum(read for read, _ in seen) / len(seen) > 0.7


def look(rng: random.Random, folder):
    """(whether an invented table was read, the table); a loss is an AssertionError."""
    made = table(rng)
    found = Collected("t", folder)
    try:
        tables.read(folder / "t", made.text, found)
    except UserError:
        return False, made
    check_no_loss(made, found)
    return True, made
