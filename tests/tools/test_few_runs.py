"""One run on few data: what it is told, what it costs, when it is finished."""

import json
import sys

import pytest

import train
from base.files import UserError
from loop import checkpoint
from tests.making.corpus import make_data
from tools import few_data, few_runs


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("few") / "data")


def planned(data_dir, out, **settings) -> list[few_runs.Trial]:
    options = few_data.FewData(
        data_dir=str(data_dir),
        **{"unique_tokens": "600", "passes": 2, "d_model": 16, "heads": 2, "layers": 1}
        | {"max_length": 48, "batch_size": 4, "warmup_steps": 2, "eval_documents": 3, **settings},
    )
    (few,) = few_runs.read_few(options.data_dir, options.max_length, [600])
    return few_runs.plan(few, out, few_data.read_trials("0:0.1,0.2:0.5"), options)


def test_both_sides_get_the_same_trials(data_dir, tmp_path):
    runs = planned(data_dir, tmp_path)
    assert [(trial.side, trial.name) for trial in runs] == [
        ("diffusion", "0:0.1"),
        ("diffusion", "0.2:0.5"),
        ("ar", "0:0.1"),
        ("ar", "0.2:0.5"),
    ]
    differ = {"objective", "dropout", "weight_decay"}
    same = [{k: v for k, v in trial.settings.items() if k not in differ} for trial in runs]
    assert same[0] == same[1] == same[2] == same[3] and same[0]["final_learning_rate"] == 1.0
    few, steps = runs[0].few, same[0]["max_steps"]
    assert few.tokens <= 600 and 0 <= steps * 4 - 2 * few.rows < 4
    words = few_runs.command(runs[3], str(data_dir), "cpu", 1)
    parsed = train.parse_args(words[2:])  # train.py knows every flag
    assert parsed.objective == "ar" and parsed.dropout == 0.2 and parsed.resume == "auto"


def test_operations_grow_with_passes_and_tokens(data_dir, tmp_path):
    runs = planned(data_dir, tmp_path)
    once = few_runs.operations(runs[0], 1)
    assert few_runs.operations(runs[0], 7) == pytest.approx(7 * once)
    # 6 operations per token and weight, and what attention adds.
    assert once > 6 * runs[0].few.tokens * 16 * runs[0].few.vocabulary[0]
    assert few_runs.operations(runs[2], 1) < once  # the twin attends to the left only


def test_a_run_is_finished_with_its_last_step_or_without_patience(data_dir, tmp_path, monkeypatch):
    trial = planned(data_dir, tmp_path)[0]
    assert not few_runs.is_finished(trial)
    monkeypatch.setattr(few_runs, "run", lambda words: train.main(words[2:]) or 0)
    few_runs.train(trial, str(data_dir), "cpu", 1)
    assert few_runs.is_finished(trial)
    longer = planned(data_dir, tmp_path, passes=3)[0]
    assert not few_runs.is_finished(longer)  # it is continued
    state = checkpoint.load(trial.folder / "resume.pt")
    state.pop("checksums", None)
    checkpoint.save(trial.folder / "resume.pt", state | {"no_better": 6})
    assert few_runs.is_finished(longer)
    found = few_runs.curve(trial)
    lines = (trial.folder / "log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    bits = [row["val_bits_per_byte"] for row in rows if "val_bits_per_byte" in row]
    seen = [row["tokens_seen"] for row in rows if "tokens_seen" in row]
    assert found["bits_per_byte"] == bits and min(bits) == found["best_bits_per_byte"]
    assert found["passes"] == pytest.approx([tokens / trial.few.tokens for tokens in seen])
    for settings, message in (
        ({"learning_rate": 1.0}, "with --learning_rate 0.002; expected 1.0; run again"),
        ({"d_model": 32}, "with --d_model 16; expected 32"),
        ({"patience": 2}, "with --patience 6; expected 2"),
        ({"passes": 1}, "raise --passes"),
    ):
        with pytest.raises(UserError, match=message):
            few_runs.is_finished(planned(data_dir, tmp_path, **settings)[0])
    other = planned(make_data(tmp_path / "other", seed=1), tmp_path)[0]
    with pytest.raises(UserError, match="with other texts"):
        few_runs.is_finished(other)


def test_a_training_that_fails_is_named(data_dir, tmp_path, monkeypatch):
    assert few_runs.run([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    monkeypatch.setattr(few_runs, "run", lambda words: 3)
    with pytest.raises(UserError, match="train.py with status 3"):
        few_runs.train(planned(data_dir, tmp_path)[0], str(data_dir), "cpu", 1)
