"""The JSON of COCO and Karpathy: ids as text, records named, orphans counted, ids of two files."""

import json

import pytest

from base.files import UserError
from caption import annotations, photos
from caption.annotations import Source, normal_id

SOURCE = Source("c.json", "captions")


@pytest.mark.parametrize(
    "value, id",
    [
        (42, "42"),
        (42.0, "42"),
        ("42", "42"),
        ("42.0", "42"),
        (" 000000000042 ", "42"),
        ("0000", "0"),
        (0, "0"),
        (-3, "-3"),
        ("a042", "a042"),
        ("0" * 100_000 + "7", "7"),
        ("9" * 5000, "9" * 5000),
        (2**80, str(2**80)),
        (True, None),
        (None, None),
        ("", None),
        (0.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (2.0**60, None),  # rounded: nobody knows which number this was
        ([1], None),
    ],
)
def test_ids_are_compared_as_text(value, id):
    assert normal_id(value) == id


def coco(images, notes) -> dict:
    """{"images", "annotations"} of (id, file) and (image id, caption)."""
    return {
        "images": [{"id": id, "file_name": name} for id, name in images],
        "annotations": [{"image_id": id, "caption": text} for id, text in notes],
    }


def test_ids_of_all_kinds_meet(capsys):
    content = coco([(1, "a.jpg"), ("02", "b.jpg")], [(1.0, "a dog"), (2, "a cat"), ("2.0", "two")])
    found = annotations.from_coco(content, SOURCE, need_files=True)
    assert [(one.id, one.file, one.captions) for one in found] == [
        ("1", "a.jpg", ["a dog"]),
        ("2", "b.jpg", ["a cat", "two"]),
    ]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("need_files", [True, False])
def test_orphans_are_left_out_and_counted(capsys, need_files):
    content = coco([(1, "a.jpg")], [(1, "a dog"), (4711, "lost"), (4712, "lost")])
    found = annotations.from_coco(content, SOURCE, need_files=need_files)
    assert [one.captions for one in found] == [["a dog"]]
    assert capsys.readouterr().err == (
        "c.json: 2 of 3 annotations are left out; the first: annotation 2, of image 4711, "
        'which "images" lacks\n'
    )


def test_references_need_no_list_of_images(capsys):
    content = {"annotations": coco([], [(7, "a"), (3, "b"), ("7", "c")])["annotations"]}
    found = annotations.from_coco(content, SOURCE, need_files=False)
    assert [(one.id, one.file, one.captions) for one in found] == [
        ("7", None, ["a", "c"]),
        ("3", None, ["b"]),
    ]
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match='no list "images"'):
        annotations.from_coco(content, SOURCE, need_files=True)


@pytest.mark.parametrize("need_files", [True, False])
@pytest.mark.parametrize("ids", [(3, 3), (3, "003"), ("3", 3.0)])
def test_an_id_of_two_files_is_refused(ids, need_files):
    content = coco(zip(ids, ("a.jpg", "b.jpg"), strict=True), [(3, "a dog")])
    with pytest.raises(UserError, match=r"the id 3 for two images in c.json \(a.jpg and b.jpg\)"):
        annotations.from_coco(content, SOURCE, need_files=need_files)
    content = coco(zip(ids, ("a.jpg", "./a.jpg"), strict=True), [(3, "a dog")])
    found = annotations.from_coco(content, SOURCE, need_files=need_files)
    assert [one.captions for one in found] == [["a dog"]]  # the same file twice is joined


@pytest.mark.parametrize(
    "content, message",
    [
        ({"images": [], "annotations": {}}, 'no list "annotations"'),
        ({"images": None, "annotations": []}, 'no list "images"'),
        ({"images": [3], "annotations": []}, "image 1, which is no object"),
        ({"images": [{"id": 1}], "annotations": []}, 'image 1 .id 1. without "file_name"'),
        ({"images": [{"file_name": "a"}], "annotations": []}, 'image 1 without "id"'),
        (coco([(None, "a")], []), 'image 1, whose "id" is no whole number and no text'),
        (coco([(1, " ")], []), 'image 1 .id 1., whose "file_name" is empty'),
        (coco([(1, "a"), (2, 7)], []), 'image 2 .id 2., whose "file_name" is no text'),
        (coco([(1, "a")], [(1, "a"), (1, None)]), 'annotation 2, whose "caption" is no text'),
        (coco([(1, "a")], [([1], "a")]), 'annotation 1, whose "image_id" is no whole number'),
        ({"images": [], "annotations": [{"image_id": 1}]}, 'annotation 1 without "caption"'),
        ({"images": [], "annotations": [{"caption": "a"}]}, 'annotation 1 without "image_id"'),
        ({"images": [], "annotations": [None]}, "annotation 1, which is no object"),
    ],
)
def test_the_record_and_its_key_are_named(content, message):
    with pytest.raises(UserError, match="c.json of another shape: " + message):
        annotations.from_coco(content, SOURCE, need_files=True)


GOOD = {"filename": "a.jpg", "split": "test", "imgid": 1, "sentences": [{"raw": "a dog"}]}


@pytest.mark.parametrize(
    "record, message",
    [
        ({**GOOD, "filename": None}, 'image 2, whose "filename" is no text'),
        ({**GOOD, "filename": ""}, 'image 2, whose "filename" is empty'),
        ({**GOOD, "filepath": 3}, 'image 2, whose "filepath" is no text'),
        ({**GOOD, "split": None}, 'image 2, whose "split" is no text'),
        ({key: GOOD[key] for key in ("filename", "sentences")}, 'image 2 without "split"'),
        ({**GOOD, "sentences": None}, 'no list "sentences" of image 2'),
        ({**GOOD, "sentences": ["a"]}, "sentence 1 of image 2, which is no object"),
        ({**GOOD, "sentences": [{}]}, 'sentence 1 of image 2 without "raw"'),
        ({**GOOD, "sentences": [{"raw": None}]}, 'sentence 1 of image 2, whose "raw" is no text'),
        ({**GOOD, "imgid": [1]}, 'image 2, whose "imgid" is no whole number and no text'),
        (None, "image 2, which is no object"),
    ],
)
def test_records_of_karpathy_are_named(record, message):
    with pytest.raises(UserError, match="c.json of another shape: " + message):
        annotations.from_karpathy({"images": [GOOD, record]}, SOURCE)


def test_ids_of_karpathy_matter_to_references_only():
    """Two data sets in one file repeat imgid; photographs are known by their files."""
    content = {"images": [GOOD, {**GOOD, "filename": "b.jpg", "imgid": "01"}]}
    assert len(annotations.from_karpathy(content, SOURCE)) == 2
    with pytest.raises(UserError, match=r"the id 1 for two images in c.json \(a.jpg and b.jpg\)"):
        annotations.from_karpathy(content, SOURCE, need_ids=True)


def test_a_file_is_parsed_as_json_or_as_lines(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": "\xe2\x80\xa8"}\r\n')
    assert annotations.parse(path, "x", "y") == [{"a": 1}, {"a": "\u2028"}]
    for text in ("", "{", "[" * 99_999):
        path.write_text(text)
        with pytest.raises(UserError, match="empty|not JSON"):
            annotations.parse(path, "x", "y")


def test_photographs_and_references_read_the_same(tmp_path, capsys):
    """Karpathy's file with one image twice: joined. With two splits: refused."""
    twice = {"images": [GOOD, {**GOOD, "filepath": ".", "sentences": [{"raw": "b"}, {"raw": ""}]}]}
    path = tmp_path / "dataset_x.json"
    path.write_text(json.dumps(twice))
    assert photos.read(str(path), tmp_path) == {"a.jpg": ("test", ["a dog", "b"])}
    assert "1 of 3 captions gave no image with a caption" in capsys.readouterr().err
    twice["images"][1]["split"] = "val"
    path.write_text(json.dumps(twice))
    with pytest.raises(UserError, match="a.jpg of the split test and, at the image 1, of the spl"):
        photos.read(str(path), tmp_path)
