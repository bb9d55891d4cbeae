"""Several processes are one: the same losses, states that move between numbers of processes, stops,
failures, restarts, refusals."""

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
import train
import train_captioning
from base import files
from base.files import UserError
from caption import scores
from loop import distributed
from loop.batches import step_generator, with_noise_levels
from tests.making.corpus import make_data
from tests.making.processes import together
from tests.making.runs import content
from text.data import Batches, TextData

ROOT = Path(__file__).parent.parent.parent


FLAGS = [
    "--d_model",
    "16",
    "--heads",
    "2",
    "--layers",
    "1",
    "--max_length",
    "48",
    "--batch_size",
    "8",
    "--accumulate",
    "4",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--precision",
    "fp32",
    "--eval_documents",
    "4",
    "--warmup_steps",
    "2",
    "--max_steps",
    "20",
    "--log_every",
    "1",
    "--eval_every",
    "0",
    "--dropout",
    "0.1",
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("distributed") / "data")


@pytest.fixture(scope="module")
def alone(data_dir, tmp_path_factory):
    """The run that all others must equal."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train.main(["--data_dir", str(data_dir), "--out", str(out), *FLAGS])
    return out


def losses(run) -> dict[int, dict]:
    """The figures of every logged step."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {(row["step"], "val_nats_per_token" in row): row for row in rows}


def same_curve(one, other, tolerance: float = 1e-5) -> None:
    """Every step's loss, noise, tokens and evaluation agree."""
    mine, theirs = losses(one), losses(other)
    assert mine.keys() == theirs.keys()
    for step, row in mine.items():
        for key in row.keys() - {"tokens_per_second", "gradient_norm"}:
            assert theirs[step][key] == pytest.approx(row[key], rel=tolerance), (step, key)
        if (
            "gradient_norm" in row
        ):  # of a model that Muon moved: its orthogonalisation magnifies the last bits
            assert theirs[step]["gradient_norm"] == pytest.approx(row["gradient_norm"], rel=1e-2)


@pytest.mark.parametrize("world, parallel", [(2, "ddp"), (4, "fsdp")])
def test_same_losses_as_one_process(world, parallel, alone, data_dir, tmp_path):
    run = tmp_path / "run"
    assert (
        together(
            world,
            train.main,
            ["--data_dir", str(data_dir), "--out", str(run), *FLAGS, "--parallel", parallel],
        )
        == [0] * world
    )
    same_curve(alone, run)
    one, several = content(alone), content(run)  # a plain file, whatever the parallelism
    assert (
        one.keys() == several.keys() and one["train"] | {"parallel": parallel} == several["train"]
    )
    for part in ("weights", "averaged"):
        assert one[part].keys() == several[part].keys()
        for name, weight in one[part].items():
            assert (
                type(several[part][name]) is torch.Tensor
                and (weight - several[part][name]).norm() < 0.05 * weight.norm()
            ), name


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_soft_masks_in_several_processes(parallel, data_dir, tmp_path):
    """Plain steps leave the three scalars out of the loss; soft steps make two passes."""
    soft = ["--soft_masks", "--soft_share", "0.5", "--max_steps", "6"]
    words = ["--data_dir", str(data_dir), *FLAGS, *soft]
    train.main([*words, "--out", str(tmp_path / "one")])
    two = [*words, "--out", str(tmp_path / "two"), "--parallel", parallel]
    assert together(2, train.main, two) == [0, 0]
    same_curve(tmp_path / "one", tmp_path / "two")
    weights = [content(tmp_path / name)["weights"] for name in ("one", "two")]
    for name in ("w_s", "w_a", "w_b"):
        assert weights[0][name].item() == pytest.approx(weights[1][name].item(), rel=1e-4)


def test_a_run_moves_between_numbers_of_processes(alone, data_dir, tmp_path, capfd):
    """Split over four, stopped; over two, stopped; one plain process, stopped; split over two to the end. Each stop reaches one rank only."""
    run = tmp_path / "run"
    words = ["--data_dir", str(data_dir), "--out", str(run), *FLAGS]
    assert together(4, train.main, [*words, "--parallel", "fsdp"], stop=(2, 4)) == [143] * 4
    assert content(run, "resume.pt")["weights"] is None and content(run, "resume.pt")["step"] == 5
    damaged = max((run / "resume_000005").glob("*.distcp"))
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    assert (
        together(2, train.main, [*words, "--resume"]) == [2, 2]
        and f"{damaged}, which was changed" in capfd.readouterr().err
    )
    damaged.write_bytes(good)
    assert together(2, train.main, [*words, "--resume"], stop=(1, 9)) == [143] * 2
    saved = [path.name for path in run.glob("resume_*")]
    assert (
        saved == ["resume_000010"] == [content(run, "resume.pt")["shards"]]
    )  # the older one is gone
    assert together(1, train.main, [*words, "--resume", "--parallel", "ddp"], stop=(0, 13)) == [143]
    assert not list(run.glob("resume_*")) and content(run, "resume.pt")["weights"]
    assert together(2, train.main, [*words, "--resume", "--parallel", "fsdp"]) == [0, 0]
    same_curve(alone, run)


REFUSED = {
    "a flag": (["--max_steps", "0"], "--max_steps 0"),
    "data": (["--data_dir", "nowhere"], "no nowhere"),
    "a device": (["--device", "tpu"], "--device tpu"),
    "a step that cannot be dealt": (["--accumulate", "1"], "1 micro-batches per step for 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line_and_status_2_in_every_process(case, data_dir, tmp_path, capfd):
    """Also if one process comes late: those that are early wait for it, or need not."""
    words, message = REFUSED[case]
    given = ["--data_dir", str(data_dir), "--out", str(tmp_path / "run"), *FLAGS, *words]
    assert together(2, train.main, given, late=0.5) == [2, 2]
    one_line_each(2, capfd.readouterr().err, message)


def one_line_each(world: int, error: str, message: str) -> None:
    """Every process says the same one line, and none a traceback."""
    lines = error.split("error: ")[1:]  # processes may write between another's line and its end
    assert len(lines) == world and len({line.split("\n")[0] for line in lines}) == 1, error
    assert message in lines[0]
    assert "Traceback" not in error


def test_what_only_the_leader_sees_is_refused_by_all(data_dir, tmp_path, capfd):
    """Only rank 0 claims the folder: the others would wait for it, and lose it in mid-exchange."""
    run = files.claim(tmp_path / "run")
    given = ["--data_dir", str(data_dir), "--out", str(run), *FLAGS]
    assert together(3, train.main, given) == [2, 2, 2]
    one_line_each(3, capfd.readouterr().err, "another process that writes into")


def test_evaluate_refuses_alike(tmp_path, capfd):
    words = ["--hypotheses", str(tmp_path / "none.json")]
    assert together(2, evaluate.main, words, late=0.5) == [2, 2]  # refused, not done twice
    one_line_each(2, capfd.readouterr().err, "torchrun for caption files")


FAILS_ONCE = """
import sys
sys.path.insert(0, {root!r})
import os
from base import files
from loop import fit
import train
real = fit.optimizer_step
def step(*given):
    if given[2] == 7 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        raise files.UserError("a burning disk", "a cold one", "fetch water")
    return real(*given)
fit.optimizer_step = step
files.run(train.main)
"""


@pytest.mark.long  # the launcher starts two processes twice
def test_torchrun_shows_a_failure_and_restarts_from_what_was_saved(alone, data_dir, tmp_path):
    """The real launcher: rank 1 fails in step 8, all end, all start again, go on from step 5, and nothing shows in the result."""
    script = tmp_path / "fails_once.py"
    script.write_text(FAILS_ONCE.format(root=str(ROOT)))
    words = [
        "--data_dir",
        str(data_dir),
        "--out",
        str(tmp_path / "run"),
        *FLAGS,
        "--save_every",
        "5",
        "--resume",
        "auto",
    ]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        str(script),
    ]
    done = subprocess.run(
        [*launch, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("error: found a burning disk; expected a cold one; fetch water") == 1
    assert "5/20" in done.stderr.replace(" ", "") and done.stdout.count("done: ") == 1
    same_curve(alone, tmp_path / "run")


@pytest.mark.parametrize(
    "body, status",
    [
        ("print('said', end='')", 0),
        ("print('said', end=''); sys.exit(143)", 143),
        ("print('said', end=''); raise files.UserError('a', 'b', 'c')", 2),
    ],
)
def test_a_finished_process_cannot_be_aborted_any_more(body, status):
    """Threads of gloo's that outlive their group may abort the interpreter's end: one process of several does without it."""
    code = f"import atexit, os, sys\nfrom base import files\natexit.register(os.abort)\ndef main():\n    {body}\nfiles.run(main)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "TORCHELASTIC_RUN_ID": "test"},
    )
    assert (done.returncode, done.stdout) == (status, "said")
    alone = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"}
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, env=alone
        ).returncode
        == -signal.SIGABRT
    )


def test_a_captioner_split_by_fsdp(scene_folder, tmp_path):
    """Cross-attention is called beside its block's forward, and its length head beside the model's: still the same losses."""
    words = [
        "--data_dir",
        str(scene_folder),
        "--d_model",
        "16",
        "--heads",
        "2",
        "--layers",
        "1",
        "--batch_size",
        "8",
        "--captions_per_image",
        "1",
        "--accumulate",
        "2",
        "--max_steps",
        "4",
        "--log_every",
        "1",
        "--eval_images",
        "2",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--warmup_steps",
        "1",
    ]
    train_captioning.main([*words, "--out", str(tmp_path / "one")])
    assert together(
        2, train_captioning.main, [*words, "--out", str(tmp_path / "two"), "--parallel", "fsdp"]
    ) == [0, 0]
    same_curve(tmp_path / "one", tmp_path / "two")


def alike(mine, theirs, where: str = "") -> None:
    """The same figures to twelve digits, but for how long they took."""
    assert type(mine) is type(theirs), where
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys(), where
        for key in mine.keys() - {"seconds", "seconds_per_text"}:
            alike(mine[key], theirs[key], f"{where}/{key}")
    elif isinstance(mine, list):
        assert len(mine) == len(theirs), where
        for number, pair in enumerate(zip(mine, theirs, strict=True)):
            alike(*pair, f"{where}/{number}")
    else:
        assert theirs == (pytest.approx(mine, rel=1e-12) if isinstance(mine, float) else mine), (
            where
        )


def evaluated(words: list[str], folder: Path, world: int = 2) -> dict:
    """What one process and what several write, which must be alike."""
    words = [*words, "--device", "cpu", "--threads", "1"]
    evaluate.main([*words, "--json", str(folder / "one.json")])
    assert (
        together(world, evaluate.main, [*words, "--json", str(folder / "two.json")]) == [0] * world
    )
    one, two = (json.loads((folder / name).read_text()) for name in ("one.json", "two.json"))
    alike(one, two)
    return one


def test_evaluate_gives_the_same_figures(alone, data_dir, tmp_path):
    words = ["--checkpoint", str(alone / "best.pt"), "--data_dir", str(data_dir)]
    assert evaluated([*words, "--draws", "2"], tmp_path)["by_masked_share"]
    grid = [
        "--samples",
        "--judge",
        str(twin_of(data_dir, tmp_path)),
        "--num_samples",
        "2",
        "--min_tokens",
        "8",
    ]
    assert (
        len(
            evaluated(
                [
                    *words,
                    *grid,
                    "--samplers",
                    "first_hitting,confidence,remask",
                    "--step_counts",
                    "2",
                ],
                tmp_path,
                3,
            )["samples"]
        )
        == 4
    )


def twin_of(data_dir, folder: Path) -> Path:
    """A twin, hardly trained."""
    train.main(
        [
            "--data_dir",
            str(data_dir),
            "--out",
            str(folder / "twin"),
            *FLAGS,
            "--objective",
            "ar",
            "--max_steps",
            "2",
        ]
    )
    return folder / "twin" / "best.pt"


@pytest.mark.long  # every score of a captioner, twice
def test_evaluate_gives_the_same_figures_of_captions(
    scene_folder, captioner, captioner_twin, tmp_path, monkeypatch
):
    """Batches of three images, by truth, with reranking, the twin and swapped pairs."""
    for function in (
        scores.caption_all,
        scores.swap_scores,
        scores.infilling,
    ):
        monkeypatch.setitem(inspect.unwrap(function).__kwdefaults__, "batch_size", 3)
    words = [
        "--checkpoint",
        str(captioner),
        "--twin",
        str(captioner_twin),
        "--data_dir",
        str(scene_folder),
        "--splits",
        "val,swap",
    ]
    parts = evaluated([*words, "--rerank", "2", "--step_counts", "2,4", "--infill"], tmp_path)
    assert {
        "splits",
        "twin",
        "steps",
        "blind",
        "swap",
        "infilling",
        "twin_infilling",
    } <= parts.keys()


def test_evaluate_gives_the_same_figures_of_pairs(conditional_world, tmp_path):
    words = [
        "--checkpoint",
        str(conditional_world / "context" / "best.pt"),
        "--data_dir",
        str(conditional_world / "pairs"),
        "--documents",
        "3",
        "--num_samples",
        "8",
        "--draws",
        "2",
    ]
    assert evaluated(words, tmp_path)["copies"]


def as_rank(monkeypatch, rank: int, world: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world", lambda: world)


def test_a_step_is_dealt_without_overlap(data_dir, monkeypatch):
    """Four ranks together hold the rows and the noise levels of one process, each once."""
    batches = Batches(TextData(data_dir, "train", 48), 16, 8, seed=3)
    step = lambda: with_noise_levels(batches(5), step_generator(3, 5, stream=1))
    everything, dealt = step(), []
    for rank in range(4):
        as_rank(monkeypatch, rank, 4)
        dealt += step()
    assert len(dealt) == 8 and sorted(batch["number"] for batch in dealt) == list(range(8))
    for batch in dealt:
        mine = everything[batch["number"]]
        assert np.array_equal(mine["rows"], batch["rows"]) and torch.equal(
            mine["uniform"], batch["uniform"]
        )


def test_what_cannot_be_dealt_or_done_is_refused(data_dir, monkeypatch):
    as_rank(monkeypatch, 0, 3)
    with pytest.raises(
        UserError,
        match="found 4 micro-batches per step for 3 processes; .*; set --accumulate to a multiple of 3",
    ):
        Batches(TextData(data_dir, "train", 48), 8, 4)(0)
    assert distributed.choose_parallel("auto", 91_000_000, False)[0] == "fsdp"
    assert (
        distributed.choose_parallel("auto", 91_000_000, True)[0]
        == distributed.choose_parallel("auto", 54_000_000, False)[0]
        == "ddp"
    )
    with pytest.raises(UserError, match="drop --compile"):
        distributed.choose_parallel("fsdp", 5, True)
