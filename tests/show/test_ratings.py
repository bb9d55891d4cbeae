"""The rating page without a browser: whole, silent about sources, all data escaped; and what saved ratings say."""

import base64
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import evaluate
from base import metrics
from base.files import UserError
from caption import data
from show import ratings
from tests.making.captioned import by_hand, make_captioner
from tests.show.test_pages import NASTY, Reader

DATA = "data:image/png;base64,AAAA"


def shown(count: int = 6, **captions) -> list[dict]:
    return [
        {
            "name": f"val {n}.jpg",
            "image": DATA,
            "references": [f"a human saw {n}", f"another human saw {n}"],
            "captions": {
                source: f"{text} {n}"
                for source, text in (captions or {"model": "one", "twin": "two"}).items()
            },
        }
        for n in range(count)
    ]


def test_every_picture_has_every_source_once():
    items = ratings.compose(shown(), seed=3)
    assert sorted(item["name"] for item in items) == [f"val {n}.jpg" for n in range(6)]
    orders = set()
    for item in items:
        n = re.search(r"\d", item["name"])[0]
        by_source = {source: one["text"] for one in item["captions"] for source in one["sources"]}
        assert (
            by_source["model"] == f"One {n}"
            and by_source["twin"] == f"Two {n}"
            and by_source["human"].endswith(f"human saw {n}")
        )
        assert "human saw" in by_source["shuffled"] and not by_source["shuffled"].endswith(n)
        orders.add(tuple(one["sources"][0] for one in item["captions"]))
    assert len(orders) > 2 and items == ratings.compose(shown(), seed=3) != ratings.compose(
        shown(), seed=4
    )


def test_what_looks_the_same_is_rated_once():
    items = ratings.compose(
        [
            {**one, "captions": {"model": "a dog 's ball .", "twin": "A dog's ball."}}
            for one in shown(2)
        ]
    )
    assert sorted(map(sorted, (part["sources"] for part in items[0]["captions"]))) == [
        ["human"],
        ["model", "twin"],
        ["shuffled"],
    ]


@given(st.text(max_size=40))
def test_dress_is_done_once(text):
    assert ratings.dress(
        "two dogs , it is n't  one ."
    ) == "Two dogs, it isn't one" and not ratings.dress(text).endswith(".")
    assert ratings.dress(ratings.dress(text)) == ratings.dress(text)


def test_the_page_is_whole_and_blind():
    items = ratings.compose(
        [
            {**one, "captions": {"my_model": NASTY + str(n)}, "name": NASTY}
            for n, one in enumerate(shown(3))
        ]
    )
    page = ratings.page(items, title=NASTY)
    reader = Reader(page)
    told = next(element for element in reader.elements if element[1].get("id") == "data")[2]
    told = json.loads(told)
    assert [one["text"] for item in told["items"] for one in item["captions"]] == [
        one["text"] for item in items for one in item["captions"]
    ]
    assert [
        json.loads(base64.b64decode(one["key"]))
        for item in told["items"]
        for one in item["captions"]
    ] == [one["sources"] for item in items for one in item["captions"]]
    assert (
        not re.search(r"my_model|shuffled|\bhuman\b(?! saw)", page)
        and "http" not in page.replace("http-equiv", "")
        and NASTY not in page
    )
    assert (
        len(reader.all("script")) == 2 and page.count("</script>") == 2 and page.count("<!--") == 0
    )
    assert (
        "default-src 'none'" in page
        and len(reader.all("div", "scale")[0][1])
        and len(re.findall("aria-keyshortcuts", page)) == 5
    )
    with pytest.raises(UserError, match="a data:image/ address"):
        ratings.page([{**items[0], "image": "http://a"}])


def test_too_few_and_taken_names():
    with pytest.raises(UserError, match="1 image to rate"):
        ratings.compose(shown(1))
    with pytest.raises(UserError, match="a source called 'human'"):
        ratings.compose(shown(2, human="a"))


def test_krippendorffs_own_example():
    """Computing Krippendorff's Alpha-Reliability (2011), section D: four observers, twelve units, ordinal 0.815, interval 0.849."""
    n = np.nan
    table = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
            [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
        ]
    ).T
    assert (
        round(metrics.agreement(table, "ordinal"), 3) == 0.815
        and round(metrics.agreement(table, "interval"), 3) == 0.849
    )
    assert (
        metrics.agreement(table[:, :1]) is None and metrics.agreement(np.full((4, 2), 3.0)) is None
    )
    assert metrics.agreement(np.array([[1.0, 1], [4, 4]])) == 1
    noise = np.random.default_rng(0).integers(1, 6, (4000, 2)).astype(float)
    assert abs(metrics.agreement(noise)) < 0.05


def saved(path, rater, scores, page="p") -> str:
    """scores: {(image, caption): (sources, rating)}"""
    rows = [
        {"image": image, "caption": caption, "sources": list(sources), "rating": rating}
        for (image, caption), (sources, rating) in scores.items()
    ]
    path.write_text(
        json.dumps(
            {"format": 1, "kind": "caption ratings", "page": page, "rater": rater, "ratings": rows}
        )
    )
    return str(path)


def test_means_intervals_agreement(tmp_path, capsys):
    one = {
        (f"{i}", text): (sources, rating)
        for i in range(8)
        for text, sources, rating in (
            ("good", ["model", "twin"], 4 + i % 2),
            ("bad", ["shuffled"], 1),
            ("man", ["human"], 5),
        )
    }
    two = {key: (sources, max(1, rating - 1)) for key, (sources, rating) in one.items()}
    evaluate.main(
        [
            "--ratings",
            saved(tmp_path / "a.json", "Ann", one),
            saved(tmp_path / "b.json", "", two),
            "--json",
            str(tmp_path / "out.json"),
        ]
    )
    told = json.loads((tmp_path / "out.json").read_text())
    assert list(told["sources"])[0] == "human" and told["raters"] == 2 and told["images"] == 8
    assert told["sources"]["model"] == told["sources"]["twin"]
    assert (
        told["sources"]["model"]["mean"] == 4
        and told["sources"]["model"]["ratings"] == 16
        and told["sources"]["model"]["good"] == 0.75
    )
    low, high = told["sources"]["model"]["mean_ci95"]
    assert 3.5 <= low < 4 < high <= 4.5 and told["sources"]["human"]["mean"] == 4.5
    assert 0.6 < told["alpha_ordinal"] < 1 and 0.6 < told["alpha_interval"] < 1
    assert "| shuffled | 8 | 16 | 1.00 [1.00, 1.00] | 0.0 [0.0, 0.0] |" in capsys.readouterr().out
    evaluate.main(["--ratings", str(tmp_path / "a.json")])
    assert "agreement: not defined" in capsys.readouterr().out


def test_bad_ratings(tmp_path):
    good = saved(tmp_path / "a.json", "Ann", {("1", "a"): (["model"], 3)})
    for content, message in (
        ("", "not JSON"),
        ("{}", "with format None"),
        ("[]", "no JSON object"),
    ):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(UserError, match=message):
            evaluate.main(["--ratings", str(tmp_path / "bad.json")])
    for rating in (0, 6, 2.5, True, "3", None):
        with pytest.raises(UserError, match="entry 1 of .* damaged"):
            evaluate.main(
                ["--ratings", saved(tmp_path / "bad.json", "Bo", {("1", "a"): (["model"], rating)})]
            )
    with pytest.raises(UserError, match="entry 1 of .* damaged"):
        evaluate.main(["--ratings", saved(tmp_path / "bad.json", "Bo", {("1", "a"): ([], 3)})])
    with pytest.raises(UserError, match=r"from one rater \(Ann\)"):
        evaluate.main(
            ["--ratings", good, saved(tmp_path / "b.json", "Ann", {("1", "a"): (["model"], 3)})]
        )
    with pytest.raises(UserError, match="no rating in"):
        evaluate.main(["--ratings", saved(tmp_path / "b.json", "Ann", {})])
    with pytest.raises(UserError, match="--rate with --ratings"):
        evaluate.main(["--ratings", good, "--rate", str(tmp_path / "p.html")])


def test_a_page_from_a_checkpoint_and_its_signature(tmp_path, capsys):
    """Photographs: model, twin, human, shuffled on one page; figures with the signature of what they rest on."""
    records = [
        {
            "image": f"{n}.png",
            "split": split,
            "captions": [f"a dog and {n} men", f"{n} men with a dog"],
        }
        for n, split in enumerate(["train"] * 16 + ["val"] * 4)
    ]
    folder = by_hand(tmp_path / "photos", records)
    for record in records:
        Image.new("RGB", (40, 30), (200, 10, 10)).save(folder / record["image"])
    run, twin = (
        make_captioner(folder, tmp_path / name, *flags) / "best.pt"
        for name, flags in (("a", []), ("b", ["--objective", "ar"]))
    )
    words = [
        "--checkpoint",
        str(run),
        "--twin",
        str(twin),
        "--data_dir",
        str(folder),
        "--device",
        "cpu",
        "--step_counts",
        "2",
    ]
    evaluate.main([*words, "--rate", str(tmp_path / "page.html"), "--num_samples", "3"])
    told = json.loads(
        re.search(r'id="data">(.*?)</script>', (tmp_path / "page.html").read_text(), re.S)[1]
    )
    assert len(told["items"]) == 3 and all(
        item["image"].startswith("data:image/jpeg;base64,") for item in told["items"]
    )
    sources = {
        source
        for item in told["items"]
        for one in item["captions"]
        for source in json.loads(base64.b64decode(one["key"]))
    }
    assert sources == {"model", "twin", "human", "shuffled"} and all(
        item["name"].startswith("val ") for item in told["items"]
    )
    capsys.readouterr()
    evaluate.main([*words, "--json", str(tmp_path / "scores.json")])
    out, told = capsys.readouterr().out, json.loads((tmp_path / "scores.json").read_text())
    line = "tokens:ptb|references:2/2.00/2|images:4|cider:D,df=these|on:photos/val|version:2"
    assert (
        out.count("tokens:ptb") == 1
        and line in out
        and told["splits"]["val"]["signature"] == told["blind"]["signature"] == line
    )
    assert told["splits"]["val"]["bleu_4_ci95"] and data.read_meta(folder)["splits"]["val"] == 4
