"""Anybody's caption files: every layout read, every mistake one line, and the figures those of the scorer."""

import json

import pytest

import evaluate
from base.files import UserError
from caption import coco
from caption import results as caption_results

TEXTS = {
    1: ["a dog runs", "the dog is running fast"],
    22: ["two men play chess", "men at a table", "a game of chess"],
    3: ["a boat on a lake"],
}
COCO = {
    "images": [{"id": n, "file_name": f"photo_{n}.jpg"} for n in TEXTS],
    "annotations": [
        {"image_id": n, "id": 10 * n + i, "caption": text}
        for n, texts in TEXTS.items()
        for i, text in enumerate(texts)
    ],
}
RESULTS = [{"image_id": n, "caption": texts[-1]} for n, texts in reversed(TEXTS.items())]


@pytest.fixture
def folder(tmp_path):
    """put(name, content): a file with this JSON (or text), its path back."""

    def put(name, content):
        (tmp_path / name).write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
        )
        return str(tmp_path / name)

    return put


def test_scores_from_files(folder, tmp_path, capsys):
    """The keys and figures that --json promises, whatever the files call the images."""
    want = coco.scores(
        [texts[-1] for texts in TEXTS.values()], list(TEXTS.values()), "captions.json", seed=0
    )
    references = folder("captions.json", COCO)
    by_name = [
        {"image_id": f"some/where/photo_{one['image_id']}.jpg", "caption": one["caption"]}
        for one in RESULTS
    ]
    lines = "".join(
        json.dumps(
            {"image": f"photo_{n}.jpg", "caption": texts[-1], "bound": 1.0, "references": texts}
        )
        + "\n"
        for n, texts in TEXTS.items()
    )
    for results in (RESULTS, by_name, lines):
        evaluate.main(
            [
                "--hypotheses",
                folder("mine.json", results),
                "--references",
                references,
                "--json",
                str(tmp_path / "scores.json"),
            ]
        )
        told = json.loads((tmp_path / "scores.json").read_text())
        assert {
            key: told[key]
            for key in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "signature")
        } == {
            key: want[key]
            for key in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "signature")
        }
        assert told["cider_ci95"] == list(want["cider_ci95"]) and told["images"] == 3
    assert f"| mine | 3 | {100 * want['bleu_1']:.1f} [" in capsys.readouterr().out
    evaluate.main(
        [
            "--hypotheses",
            folder("own.jsonl", lines),
            folder("b.json", by_name),
            "--json",
            str(tmp_path / "scores.json"),
        ]
    )  # their own references
    told = json.loads((tmp_path / "scores.json").read_text())["files"]
    assert (
        told["own"]["cider"] == told["b"]["cider"] == want["cider"]
        and "references:1/2.00/3|images:3|" in told["own"]["signature"]
    )


def test_an_id_is_an_id_before_it_is_a_file(folder):
    """Image 5 lies in 7.jpg, image 7 in 5.jpg; two files of one name in two folders are told apart by their folders only."""
    images = [
        {"id": 5, "file_name": "7.jpg"},
        {"id": 7, "file_name": "5.jpg"},
        {"id": 1, "file_name": "a/x.jpg"},
        {"id": 2, "file_name": "b/x.jpg"},
    ]
    references = folder(
        "c.json",
        {
            "images": images,
            "annotations": [{"image_id": one["id"], "caption": "a dog"} for one in images],
        },
    )
    rows = [{"image_id": name, "caption": name} for name in ("5", "5.jpg", "a/x.jpg", "b/x.jpg")]
    assert [
        image.captions for image in caption_results.read([folder("r.json", rows)], references)
    ] == [["5"], ["5.jpg"], ["a/x.jpg"], ["b/x.jpg"]]
    rows[2]["image_id"] = "x.jpg"
    with pytest.raises(UserError, match=r"no caption in .* for 1 of 4 images \(1\)"):
        caption_results.read([folder("r.json", rows)], references)


def test_karpathys_file_and_its_splits(folder):
    content = {
        "dataset": "tiny",
        "images": [
            {
                "imgid": i,
                "cocoid": 100 + n,
                "filepath": "val2014",
                "filename": f"photo_{n}.jpg",
                "split": split,
                "sentences": [{"raw": text, "tokens": []} for text in TEXTS[n]],
            }
            for i, (n, split) in enumerate(((1, "test"), (22, "val"), (3, "test")))
        ],
    }
    path = folder("dataset_tiny.json", content)
    assert [
        (image.id, image.file, image.references) for image in caption_results.read_references(path)
    ] == [("101", "val2014/photo_1.jpg", TEXTS[1]), ("103", "val2014/photo_3.jpg", TEXTS[3])]
    found = caption_results.read(
        [folder("r.json", [{"image_id": 122, "caption": "chess"}])], path, "val"
    )
    assert found[0].captions == ["chess"] and len(found) == 1
    with pytest.raises(UserError, match="no split 'dev'.*expected one of test, val"):
        caption_results.read_references(path, "dev")


@pytest.mark.parametrize("write", [float, "{:012}".format, "{}.0".format, str])
def test_an_id_is_one_number_however_it_is_written(folder, write):
    """42, 42.0 (a column with gaps in pandas) and "000000000042" (a file's name) are one id."""
    rows = [{"image_id": write(row["image_id"]), "caption": row["caption"]} for row in RESULTS]
    references = folder("captions.json", COCO)
    found = caption_results.read([folder("r.json", rows)], references)
    assert [image.captions for image in found] == [[texts[-1]] for texts in TEXTS.values()]
    with pytest.raises(UserError, match="1 image twice in .*"):
        caption_results.read([folder("r.json", [*rows, RESULTS[0]])], references)


def test_a_files_name_comes_before_an_id_of_the_same_number(folder):
    images = [{"id": 7, "file_name": "005.jpg"}, {"id": 5, "file_name": "x.jpg"}]
    notes = [{"image_id": id, "caption": "a dog"} for id in (7, 5)]
    references = folder("c.json", {"images": images, "annotations": notes})
    rows = [{"image_id": "005", "caption": "seven"}, {"image_id": "x", "caption": "five"}]
    found = caption_results.read([folder("r.json", rows)], references)
    assert [image.captions for image in found] == [["seven"], ["five"]]


def test_references_are_checked_as_photographs_are(folder, capsys):
    twice = {**COCO, "images": [*COCO["images"], {"id": 3, "file_name": "photo_11.jpg"}]}
    with pytest.raises(UserError, match="the id 3 for two images in .*photo_3.jpg and photo_11"):
        caption_results.read_references(folder("c.json", twice))
    more = {**COCO, "annotations": [*COCO["annotations"], {"image_id": 4711, "caption": "lost"}]}
    assert len(caption_results.read_references(folder("c.json", more))) == 3
    assert "1 of 7 annotations are left out" in capsys.readouterr().err


def test_cider_of_one_image_is_zero_and_a_note_says_so(folder, capsys):
    """CIDEr weighs words by how few images have them: of one image it is 0, as in coco-caption."""
    one = {"images": COCO["images"][:1], "annotations": COCO["annotations"][:2]}
    words = ["--hypotheses", folder("r.json", RESULTS[-1:]), "--references", folder("c.json", one)]
    evaluate.main(words)
    told = capsys.readouterr()
    assert (
        "note: CIDEr of a single image is always 0" in told.err and "| 0.0 [0.0, 0.0] |" in told.out
    )
    scores = coco.scores(["a dog", "a cat"], [["a dog"], ["a cat"]])
    assert scores["cider"] > 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "results, message",
    [
        ("", "which is empty"),
        ("[", "which is not JSON"),
        ("{}", "no list of captions"),
        ([], "with no caption"),
        ([3], "entry 1, which is no object"),
        ("[" * 99_999, "not JSON"),
        ([{"image_id": 1}], 'entry 1 without "caption"'),
        ([{"caption": "a"}], 'entry 1 without "image_id"'),
        ([{"image_id": float("nan"), "caption": "a"}], 'entry 1, whose "image_id" is no whole'),
        ([{"image_id": 1, "caption": None}], 'entry 1, whose "caption" is no text'),
        ([{"image_id": [1], "caption": ""}], 'entry 1, whose "image_id" is no whole number'),
        ([{"image_id": 1, "caption": "a", "references": "b"}], 'whose "references" are no list'),
        (RESULTS + RESULTS[:2], r"2 images twice in .* \(3, 22\)"),
        (RESULTS[:1], r"no caption in .* for 2 of 3 images \(1, 22\)"),
        (RESULTS + [{"image_id": 4, "caption": "a"}], r"1 image in .* without references \(4\)"),
        (RESULTS + [{"image_id": "photo_3.jpg", "caption": "a"}], "the image 3 under two names"),
        ("\udcff", "no UTF-8 in line 1"),
    ],
)
def test_bad_results(folder, tmp_path, results, message):
    if results == "\udcff":
        (tmp_path / "r.json").write_bytes(b"[\xff]")
        path = str(tmp_path / "r.json")
    else:
        path = folder("r.json", results)
    with pytest.raises(UserError, match=message):
        evaluate.main(["--hypotheses", path, "--references", folder("captions.json", COCO)])


@pytest.mark.parametrize(
    "references, message",
    [
        ("", "which is empty"),
        ("[]", "of another shape"),
        ({"annotations": []}, "no caption"),
        ({"annotations": [{"image_id": 1}]}, "of another shape"),
        (
            {"annotations": [{"image_id": 1, "caption": 3}]},
            "annotation 1, whose .caption. is no text",
        ),
        ({"annotations": {"a": 1}}, "of another shape"),
        ({"images": [{"split": "test"}]}, "of another shape"),
        ("3", "of another shape"),
    ],
)
def test_bad_references(folder, references, message):
    with pytest.raises(UserError, match=message):
        evaluate.main(
            [
                "--hypotheses",
                folder("r.json", RESULTS),
                "--references",
                folder("captions.json", references),
            ]
        )


def test_refused_flags(folder, tmp_path):
    results, references = folder("r.json", RESULTS), folder("captions.json", COCO)
    for words, message in (
        (["--hypotheses", results], "no references for 3 of 3 images"),
        (["--references", references], "--references without --hypotheses"),
        (["--hypotheses", results, "--checkpoint", "a.pt"], "--checkpoint with --hypotheses"),
        (["--image_dir", "."], "--image_dir without"),
        (["--hypotheses", results, "--twin", "a.pt"], "--twin with --hypotheses"),
        (["--ratings", results, "--splits", "val"], "--splits with --ratings"),
        (
            ["--hypotheses", results, "--references", references, "--splits", "val"],
            "--splits val for",
        ),
        (
            ["--hypotheses", results, "--references", references, "--clip_score", str(tmp_path)],
            "no CLIP in",
        ),
        (
            [
                "--hypotheses",
                results,
                "--references",
                references,
                "--rate",
                str(tmp_path / "p.html"),
                "--image_dir",
                str(tmp_path),
            ],
            "no .*photo_1.jpg",
        ),
        (["--hypotheses", results, "--rate", "p.html", "--json", "a.json"], "--rate with --json"),
        (["--hypotheses", str(tmp_path / "none.json")], "no .*none.json"),
        (["--hypotheses", str(tmp_path)], "folder|directory"),
    ):
        with pytest.raises((UserError, OSError), match=message):
            evaluate.main(words)
