"""The tool that measures shortcuts in writing, on captions and on stories."""

import json

import pytest

from base.files import UserError
from tools import shortcuts


def rows_of(path) -> dict:
    return {row["side"]: row for row in json.loads(path.read_text())["rows"]}


def test_captions_at_temperature_0_stay_the_same_in_fewer_calls(
    captioner, scene_folder, tmp_path, capsys
):
    out = tmp_path / "figures.json"
    flags = ["--checkpoint", str(captioner), "--data_dir", str(scene_folder), "--texts", "8"]
    more = ["--temperature", "0", "--guesses", "1,4", "--batches", "1,8", "--repeats", "1"]
    shortcuts.main([*flags, *more, "--threads", "1", "--json", str(out)])
    rows = rows_of(out)
    single = rows["one token per call"]
    assert single["calls"] == single["rows"] and single["batches"]["1"]["times_faster"] == 1
    for name in ("1 ahead", "4 ahead"):
        assert rows[name]["calls"] < single["calls"] <= rows[name]["rows"]
        assert rows[name]["truthful"] == single["truthful"]
        assert rows[name]["distinct_captions"] == single["distinct_captions"]
    assert "| 4 ahead |" in capsys.readouterr().out


def test_stories_are_judged_by_a_twin(text_runs, tmp_path):
    out = tmp_path / "figures.json"
    flags = ["--checkpoint", str(text_runs.denoiser), "--data_dir", str(text_runs.data)]
    flags += ["--judge", str(text_runs.twin), "--texts", "2", "--min_tokens", "8"]
    more = ["--guesses", "2", "--batches", "1", "--repeats", "1", "--sampler", "first_hitting"]
    caches = ["--caches", "prefix,dual", "--block_size", "4", "--steps", "12"]
    shortcuts.main([*flags, *more, *caches, "--threads", "1", "--json", str(out)])
    rows = rows_of(out)
    assert rows["2 ahead"]["judge_nats_per_token"] > 0 and rows["2 ahead"]["unigram_entropy"] > 0
    assert rows["blocks of 4, cache none"]["agreement"] == 1
    assert 0 < rows["blocks of 4, cache dual"]["agreement"] <= 1


def test_what_it_refuses(text_runs, captioner, scene_folder):
    data = ["--data_dir", str(text_runs.data)]
    with pytest.raises(UserError, match="a twin; expected a denoiser"):
        shortcuts.main(["--checkpoint", str(text_runs.twin), *data])
    with pytest.raises(UserError, match="lower --texts or --min_tokens"):
        shortcuts.main(["--checkpoint", str(text_runs.denoiser), *data, "--texts", "9999"])
    with pytest.raises(UserError, match="--sampler .remask.; expected"):
        shortcuts.main(["--checkpoint", str(captioner), "--sampler", "remask"])
    with pytest.raises(UserError, match="--caches for a captioner"):
        shortcuts.main(["--checkpoint", str(captioner), "--caches", "dual"])
    with pytest.raises(UserError, match="--caches both"):
        shortcuts.main(["--checkpoint", str(captioner), "--caches", "both"])
    with pytest.raises(UserError, match="lower --texts"):
        flags = ["--checkpoint", str(captioner), "--data_dir", str(scene_folder)]
        shortcuts.main([*flags, "--texts", "9999"])
