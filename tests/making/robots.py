"""A small world of robots: data without images, a grounder and a policy, a few steps old."""

from pathlib import Path

import torch

import prep_robot_demos
import train_grounding
import train_policy

FEW = ["--log_every", "1", "--eval_every", "2", "--save_every", "2", "--threads", "1"]
GROUND = ["--sees", "state", "--batch_size", "4", *FEW]
ACT = ["--batch_size", "16", "--d_model", "16", "--layers", "1", *FEW]


def make_data(folder: Path, *more: str) -> Path:
    arguments = ["--num_demos", "3", "--num_stills", "24", "--orders", "3", "--image_side", "0"]
    prep_robot_demos.main([*arguments, "--out", str(folder), *more])
    return folder


def make_grounder(data: Path, run: Path, *more: str) -> Path:
    where = ["--data_dir", str(data), "--out", str(run)]
    train_grounding.main([*where, *GROUND, "--max_steps", "4", *more])
    return run


def make_policy(data: Path, grounder: Path, run: Path, *more: str) -> Path:
    where = ["--data_dir", str(data), "--out", str(run)]
    where += ["--grounding", str(grounder / "best.pt")]
    train_policy.main([*where, *ACT, "--max_steps", "4", *more])
    return run


def make_world(root: Path) -> Path:
    make_data(root / "data")
    make_grounder(root / "data", root / "ground")
    make_policy(root / "data", root / "ground", root / "policy")
    return root


def make_metaworld(root: Path) -> Path:
    tasks = ["--world", "metaworld", "--tasks", "reach-v3,drawer-close-v3"]
    sizes = ["--num_demos", "3", "--num_stills", "10", "--image_side", "0"]
    prep_robot_demos.main([*tasks, *sizes, "--out", str(root / "data")])
    make_grounder(root / "data", root / "ground")
    make_policy(root / "data", root / "ground", root / "policy", "--chunk", "16")
    return root


def make_so101(root: Path) -> Path:
    make_data(root / "data", "--world", "so101")
    make_grounder(root / "data", root / "ground", "--unit", "0.05")
    make_policy(root / "data", root / "ground", root / "policy", "--unit", "0.05")
    return root


class Killed(Exception):
    """A run that ends as if it was killed."""


def killed_at(step: int, monkeypatch, module) -> None:
    """Let the loss that `module.make_loss` makes raise Killed at a step."""
    make_loss = module.make_loss

    def make(*arguments):
        loss_fn, calls = make_loss(*arguments), []

        def loss(*given):
            calls.append(1)
            if len(calls) > step:
                raise Killed
            return loss_fn(*given)

        return loss

    monkeypatch.setattr(module, "make_loss", make)


def same_run(one: Path, other: Path) -> None:
    """Weights, averages and figures are equal to the bit."""
    left, right = (torch.load(run / "last.pt", weights_only=True) for run in (one, other))
    assert left["step"] == right["step"]
    for key in ("weights", "averaged"):
        for name, weight in left[key].items():
            assert torch.equal(weight, right[key][name]), name
    assert left["metrics"] == right["metrics"]
