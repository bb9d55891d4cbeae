"""What evaluate.py says of a checkpoint, as its --json holds it."""

import json

import evaluate


def scored(checkpoint, data_dir, folder, *words) -> dict:
    """The figures of a checkpoint. folder: where the JSON goes. words: further flags."""
    out = folder / "out.json"
    given = ["--checkpoint", checkpoint, "--data_dir", data_dir, "--json", out, "--device", "cpu"]
    evaluate.main([str(word) for word in (*given, *words)])
    return json.loads(out.read_text())
