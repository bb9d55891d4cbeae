"""The stages of the robot demo: each is one of the scripts, as a user would run it."""

from pathlib import Path

from loop.commands import Command, words


def commands(out: Path, seed: int, quick: bool, page: bool) -> list[Command]:
    """Record, ground, train, act. quick: a few steps, to see that it runs. page: with clips.

    The policy reads a simulator's list of things, so training needs no OpenGL; the page does.
    """
    data, ground, policy = out / "data", out / "ground", out / "policy"
    few = 0.02 if quick else 1.0
    episodes = 2 if quick else 40
    return [
        words(
            "prep_robot_demos.py",
            out=data,
            num_demos=round(800 * few),
            num_stills=round(8000 * few),
            image_side=0,
            seed=seed,
        ),
        words(
            "train_grounding.py",
            data_dir=data,
            out=ground,
            sees="state",
            max_steps=round(800 * few),
            batch_size=32,
            seed=seed,
        ),
        words(
            "train_policy.py",
            data_dir=data,
            grounding=ground / "best.pt",
            out=policy,
            d_model=96,
            layers=2,
            max_steps=round(2500 * few),
            seed=seed,
        ),
        words(
            "run_policy.py",
            checkpoint=policy / "best.pt",
            splits="val,held_pair",
            episodes=episodes,
            json=out / "results.json",
            seed=seed + 1,
            html=out / "index.html" if page else None,
        ),
    ]
