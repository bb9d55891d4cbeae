"""Scenes as picture tokens: made once, continued after a stop, refused for other scenes and codes."""

import numpy as np
import pytest
import torch

import prep_image_tokens
from base.files import UserError
from image import drawn, tokenisers
from image.data import PictureData
from image.rows import Pairs
from tests.making.pictures import make_codes, make_reader
from worlds import scenes
from worlds.collection import Scenes, most_objects, sample

SIZES = "--num_train 12 --num_val 3 --levels 1,2 --vocab_size 300 --workers 1 --device cpu"


@pytest.fixture
def words(tmp_path, monkeypatch):
    """The flags of a small folder, saved every 8 pictures."""
    monkeypatch.setattr(prep_image_tokens, "CHUNK", 8)
    codes = make_codes(tmp_path / "codes.safetensors")
    return ["--out", str(tmp_path / "out"), "--codes", str(codes), *SIZES.split()]


def test_the_tokens_are_those_of_the_scenes(words, tmp_path, capsys):
    prep_image_tokens.main(words)
    read = PictureData(tmp_path / "out")
    wanted = Scenes(num_train=12, num_val=3, levels="1,2", vocab_size=300)
    assert read.splits == wanted.sizes() and (read.grid, read.codes) == (4, 4096)
    model = tokenisers.open_codes(read.codes_file)
    for split in ("train", "swap"):
        for number, record in enumerate(read.records(split)):
            scene, texts = sample(split, number, wanted)
            assert record == {"split": split, "captions": texts, "scene": scene.to_dict()}
            pixels = tokenisers.to_pixels(drawn.picture(scene, 32)[None])
            assert (model.encode(pixels)[0].numpy() == read.tokens(split)[number]).mean() > 0.9
    text = read.records("val")[0]["captions"][0]
    assert read.tokenizer.decode(read.tokenizer.encode(text)) == text
    prep_image_tokens.main(words)
    assert "all tokens are there" in capsys.readouterr().err
    with pytest.raises(UserError, match="seed 0; expected seed 1"):
        prep_image_tokens.main([*words, "--seed", "1"])
    with pytest.raises(UserError, match="tidy None; expected tidy True"):
        prep_image_tokens.main([*words, "--tidy"])
    torch.manual_seed(1)
    other = make_codes(tmp_path / "other", levels="7,5,5,5")
    with pytest.raises(UserError, match="picture_codes"):
        prep_image_tokens.main([*words, "--codes", str(other)])


def test_a_stopped_run_continues(words, tmp_path, monkeypatch):
    straight = [str(tmp_path / "straight") if word == words[1] else word for word in words]
    prep_image_tokens.main(straight)
    encode, calls = prep_image_tokens.PictureCodes.encode, []

    def dying(self, pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(prep_image_tokens.PictureCodes, "encode", dying)
        with pytest.raises(KeyboardInterrupt):
            prep_image_tokens.main(words)
        with pytest.raises(UserError, match="noise 2; expected noise 1"):
            prep_image_tokens.main([*words, "--noise", "1"])
        prep_image_tokens.main(words)
    assert calls[:3] == [8, 8, 8] and sum(calls) == 8 + len(PictureData(straight[1]).every_record)
    one, two = tmp_path / "out", tmp_path / "straight"
    for name in ("tokens.npy", "captions.jsonl", "meta.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert not (one / "unfinished.npy").exists()
    assert np.load(one / "tokens.npy", allow_pickle=False).dtype == np.uint16


def test_a_file_of_another_kind_is_refused_at_once(words, tmp_path):
    reader = make_reader(tmp_path / "reader")
    with pytest.raises(UserError, match="no picture codes"):
        prep_image_tokens.main([*words, "--codes", str(reader)])
    assert not (tmp_path / "out").exists()


def test_plans(words, tmp_path, capsys):
    with pytest.raises(UserError, match="--plans without --tidy"):
        prep_image_tokens.main([*words, "--plans"])
    with pytest.raises(UserError, match="--plans with --noise 2"):
        prep_image_tokens.main([*words, "--plans", "--tidy"])
    planned = [*words, "--plans", "--tidy", "--noise", "0"]
    with pytest.raises(UserError, match="--vocab_size 300, which splits words of plans"):
        prep_image_tokens.main(planned)
    # The tokens are there: a larger vocabulary needs no new pictures.
    planned += ["--vocab_size", "600"]
    prep_image_tokens.main(planned)
    read = PictureData(tmp_path / "out")
    assert read.plans == 2 and Pairs(read, "train").vocabulary.plan == 13
    prep_image_tokens.main(planned)
    assert "all tokens are there" in capsys.readouterr().err
    planned.remove("--plans")
    with pytest.raises(UserError, match="plans 2; expected plans None"):
        prep_image_tokens.main(planned)


def test_a_tidy_folder_of_other_scenes_is_not_continued(words, monkeypatch):
    """Objects that stood closer: the scenes of the same flags were others."""
    with monkeypatch.context() as before:
        before.setattr(scenes, "TIDY_GAP", 1)
        prep_image_tokens.main([*words, "--tidy"])
    with pytest.raises(UserError, match="gap 1; expected gap 2"):
        prep_image_tokens.main([*words, "--tidy"])


def test_most_objects():
    assert [most_objects(Scenes(levels=levels)) for levels in ("1", "1,2", "1,2,3")] == [1, 2, 5]
