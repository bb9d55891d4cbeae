"""A small folder of dialogues about scenes, and a model of them that is a few steps old."""

import prep_dialogue
import train_dialogue

SMALL = ["--d_model", "32", "--heads", "2", "--layers", "2", "--batch_size", "4"]
SMALL += ["--threads", "1", "--device", "cpu", "--eval_dialogues", "3", "--warmup_steps", "2"]


def make_dialogues(folder, *flags: str):
    """12 training scenes, 3 in each other split."""
    sizes = ["--num_train", "12", "--num_val", "3", "--workers", "1", "--device", "cpu"]
    prep_dialogue.main(["--out", str(folder), *sizes, *flags])
    return folder


def make_answerer(data_dir, out, *flags: str):
    """A run folder from a few steps of a very small model of dialogues."""
    words = ["--data_dir", str(data_dir), "--out", str(out), *SMALL, "--max_steps", "4"]
    train_dialogue.main([*words, *flags])
    return out
