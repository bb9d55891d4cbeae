"""What trainers do before and after the loop: folders, settings in their order, refusals, last lines."""

import json
import shlex
from dataclasses import dataclass

import pytest
import torch

from base import flags
from base.config import ModelConfig, TrainConfig
from base.files import UserError
from base.flags import setting
from loop import checkpoint, recipe

SIZE = ModelConfig(vocab_size=20, output_size=17, max_length=8, d_model=16, heads=2, layers=1)


@dataclass
class Own:
    """A trainer's own flags."""

    weight: str = setting("bound", "weights of the loss", choices=("bound", "flat"))
    documents: int = setting(200, "documents", at_least=1)

    def __post_init__(self):
        flags.check(self)


def parse(*words: str):
    parser = flags.Parser("A trainer.")
    parser.add_settings(recipe.RunFolder, out="runs/new")
    parser.add_settings(Own)
    parser.add_settings(ModelConfig, skip=("vocab_size",))
    parser.add_settings(TrainConfig, learning_rate=1e-3)
    return parser.parse_args(words)


def save_state(path, **changes) -> None:
    """A resume.pt of a run with --weight flat and 30 steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {
        "kind": "text",
        "objective": "diffusion",
        "model": flags.to_dict(SIZE),
        "train": flags.to_dict(TrainConfig(max_steps=30, seed=4)),
        "flags": {"weight": "flat", "documents": 7},
    }
    checkpoint.save(path, saved | changes)


def test_a_run_that_begins(tmp_path):
    setup = recipe.read_run(parse("--out", str(tmp_path / "run")), ("text",))
    assert setup.resume is None and setup.state is None
    assert setup.own(Own) == Own() and setup.train_config().learning_rate == 1e-3
    assert recipe.read_run(parse(), ("text",)).out.name == "new"


def test_settings_in_their_order(tmp_path):
    """Default < --config < the resumed run < flags."""
    path = tmp_path / "settings.json"
    path.write_text('{"weight": "bound", "seed": 1, "beta2": 0.9, "d_model": 64}')
    save_state(tmp_path / "run" / "resume.pt")
    words = ["--out", str(tmp_path / "run"), "--resume", "--config", str(path)]
    setup = recipe.read_run(parse(*words, "--documents", "9", "--heads", "1"), ("text",))
    assert setup.own(Own) == Own(weight="flat", documents=9)
    cfg, size = setup.train_config(), setup.model_config({"layers": 5})
    assert (cfg.max_steps, cfg.seed, cfg.learning_rate) == (30, 4, TrainConfig.learning_rate)
    assert (size.d_model, size.layers, size.heads) == (16, 1, 1)
    setup = recipe.read_run(parse("--config", str(path), "--beta2", "0.8"), ("text",))
    cfg = setup.train_config()
    assert (cfg.seed, cfg.beta2, setup.model_config({"layers": 5}).layers) == (1, 0.8, 5)


def test_the_latest_stage_is_continued(tmp_path):
    states = ("resume.pt", "stage_1/resume.pt")
    words = parse("--out", str(tmp_path), "--resume", "auto")
    assert recipe.read_run(words, ("text",), states).resume is None
    both = {"max_steps": 90, "learning_rate": 0.5}
    save_state(tmp_path / "stage_1" / "resume.pt", both_stages=both)
    setup = recipe.read_run(words, ("text",), states)
    assert setup.state == tmp_path / "stage_1" / "resume.pt"
    assert setup.train_config().max_steps == 90  # of both stages, not of this stage
    save_state(tmp_path / "resume.pt")
    assert recipe.read_run(words, ("text",), states).state == tmp_path / "resume.pt"


def test_refusals(tmp_path):
    save_state(tmp_path / "run" / "resume.pt")
    out = ["--out", str(tmp_path / "run")]
    for words, kinds, message in (
        (out, ("text",), "a run in"),
        (["--out", str(tmp_path / "x"), "--resume"], ("text",), "start a run without --resume"),
        ([*out, "--resume"], ("caption",), "name a checkpoint of that kind"),
        (["--config", str(tmp_path / "no.json")], ("text",), "no .*no.json"),
    ):
        with pytest.raises(UserError, match=message):
            recipe.read_run(parse(*words), kinds)
    resume = checkpoint.load(tmp_path / "run" / "resume.pt")
    recipe.refuse_other_model(resume, SIZE, "diffusion")
    recipe.refuse_other_data("folder", "texts", ["a"], ["a"])
    with pytest.raises(UserError, match="flags for another model or objective"):
        recipe.refuse_other_model(resume, SIZE, "ar")
    with pytest.raises(UserError, match=r"folder with other texts \(a\); expected .* \(b\)"):
        recipe.refuse_other_data("folder", "texts", ["a"], ["b"])


def test_begin_and_end(tmp_path, capsys):
    out = tmp_path / "my run"
    setup = recipe.read_run(
        parse("--out", str(out), "--device", "cpu", "--threads", "1"), ("text",)
    )
    cfg = setup.train_config()
    assert recipe.begin(setup, cfg, Own(), SIZE, cfg) == torch.device("cpu")
    written = json.loads((out / "config.json").read_text())
    assert written["d_model"] == 16 and written["learning_rate"] == 1e-3
    assert "vocab_size" not in written  # no flag, so no setting
    assert "weight=bound" in capsys.readouterr().err
    recipe.end(out, {"nats_per_token": 1.23456}, "generate.py", ["--prompt", "a hen"])
    done, after = capsys.readouterr().out.splitlines()
    assert done == f"done: {out / 'best.pt'}  nats_per_token 1.2346"
    words = ["python", "generate.py", "--checkpoint", str(out / "best.pt"), "--prompt", "a hen"]
    assert after.startswith("next: ") and shlex.split(after)[1:] == words
