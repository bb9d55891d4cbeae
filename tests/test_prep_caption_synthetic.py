"""Drawing scenes: done once, continued after a kill, refused for other scenes."""

import pytest

import prep_caption_synthetic
from base.files import UserError
from base.tokenizer import Tokenizer
from tests.making.captioned import (
    make_captions,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_captions(tmp_path_factory.mktemp("scripts") / "data")


def test_prep_is_done_once_and_goes_on(data, capsys):
    before = (data / "captions.jsonl").read_bytes()
    (data / "meta.json").rename(data / "meta.aside")
    kept = (data / "images" / "val" / "000000.png").stat().st_mtime_ns
    make_captions(data)  # as after a kill: nothing is drawn twice
    assert (data / "captions.jsonl").read_bytes() == before and (
        data / "meta.json"
    ).read_bytes() == (data / "meta.aside").read_bytes()
    assert (data / "images" / "val" / "000000.png").stat().st_mtime_ns == kept
    make_captions(data)
    assert "all images are there" in capsys.readouterr().err
    for flags, message in (
        (("--seed", "1"), "another set of images"),
        (("--levels", "1,4"), "--levels 1,4"),
        (("--inside", "1"), "--inside 1"),
        (("--inside", "0.5"), "another set of images"),
        (("--encoder", str(data / "nowhere")), "no image encoder"),
        (("--device", "gpu"), "--device gpu"),
    ):
        with pytest.raises(UserError, match=message):
            make_captions(data, *flags)
    for flag in ("--num_train", "--num_val", "--captions"):
        with pytest.raises(UserError, match=f"{flag} 0"):
            prep_caption_synthetic.main(["--out", str(data), flag, "0"])


def test_the_tokens_of_other_captions(data, tmp_path):
    """--tokenizer decides the tokens, and a folder of its own tokens is another folder."""
    given = Tokenizer.train(["a dog runs on the beach", "a red dog"] * 3, 300)
    path = tmp_path / "tokenizer.json"
    path.write_text(given.to_json())
    flags = ("--tokenizer", str(path))
    out = make_captions(tmp_path / "out", *flags)
    assert Tokenizer.load(out / "tokenizer.json").fingerprint == given.fingerprint
    assert (out / "captions.jsonl").read_bytes() == (data / "captions.jsonl").read_bytes()
    make_captions(out, *flags)
    with pytest.raises(UserError, match="its given_tokenizer is"):
        make_captions(out)
    with pytest.raises(UserError, match="its given_tokenizer is None"):
        make_captions(data, *flags)
