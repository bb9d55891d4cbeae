"""infer_onnx.py writes what generate_caption.py writes, and names what it cannot use."""

import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from PIL import Image

import generate
import generate_caption
import infer_onnx
from base.files import UserError
from tests.making.bundles import image_of, resealed

ROOT = Path(__file__).parent.parent
FRAME = "a [MASK*2] red [MASK]"


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--text", FRAME],
        ["--text", FRAME, "--sampler", "confidence", "--revise", "1"],
        ["--speculate", "2"],
    ],
    ids=["free", "frame", "looking_back", "speculation"],
)
def test_it_writes_what_generate_caption_writes(bundled, capsys, more):
    """The shell's way on both sides: same flags, same seed, same words."""
    flags = ["--image", str(image_of(bundled.data)), "--num_samples", "3", "--seed", "7"]
    flags += ["--temperature", "0.9", "--sampler", "first_hitting", "--steps", "5"]
    capsys.readouterr()
    infer_onnx.main(["--bundle", str(bundled.bundle), *flags, *more])
    ours = capsys.readouterr().out
    theirs_more = [word.replace("--text", "--template") for word in more]
    generate_caption.main(["--checkpoint", str(bundled.checkpoint), *flags, *theirs_more])
    # A hardly trained model may write line breaks.
    theirs, count = re.subn(r" {3}\([\d.]+ nats/token\)\n", "\n", capsys.readouterr().out)
    assert ours == theirs and count == 3


def test_it_writes_what_generate_writes_with_each_adapter(adapted_texts, capsys):
    """From one bundle: the base, one and two, each as generate.py with its --adapter."""
    words = ["--text", "Ann had a [MASK*6]", "--sampler", "confidence", "--steps", "4"]
    words += ["--temperature", "0.9", "--seed", "7", "--num_samples", "2"]
    written = []
    for name in (None, "one", "two"):
        ours, theirs = [], []
        if name:
            ours = ["--adapter", name]
            theirs = ["--adapter", str(adapted_texts / name / "adapter.safetensors")]
        capsys.readouterr()
        infer_onnx.main(["--bundle", str(adapted_texts / "bundle"), *words, *ours])
        written.append(capsys.readouterr().out)
        run = ["--checkpoint", str(adapted_texts / "run" / "best.pt"), "--device", "cpu"]
        given = [word.replace("--text", "--template") for word in words]
        generate.main([*run, *given, *theirs])
        theirs_written = re.sub(r"--- sample \d+ ---", "", capsys.readouterr().out)
        assert theirs_written.split() == written[-1].split()
    assert len(set(written)) == 3
    found = ["--bundle", str(adapted_texts / "bundle"), "--self_test", "--adapter", "two"]
    assert infer_onnx.main([*found, "--threads", "1"]) == 0
    assert "golden, as shipped.one: 6 of 6" in capsys.readouterr().out


def test_an_adapter_that_the_bundle_lacks(adapted_texts, bundled):
    words = ["--bundle", str(adapted_texts / "bundle"), "--text", "a [MASK]"]
    with pytest.raises(UserError, match="--adapter tree; expected one of base, one, two"):
        infer_onnx.main([*words, "--adapter", "tree"])
    words = ["--bundle", str(bundled.bundle), "--image", str(image_of(bundled.data))]
    with pytest.raises(UserError, match="--adapter one, and a bundle without adapters"):
        infer_onnx.main([*words, "--adapter", "one"])


def old_format(out, facts):
    facts["format"] = 99


def other_opset(out, facts):
    proto = onnx.load(out / "encoder.onnx")
    proto.opset_import[0].version = 99
    (out / "encoder.onnx").write_bytes(proto.SerializeToString())


def other_build(out, facts):
    facts["build"] = "another"


@pytest.mark.parametrize(
    "change, words",
    [(old_format, "format 99"), (other_opset, "does not run"), (other_build, "another bundle")],
)
def test_a_bundle_that_does_not_fit(bundled, tmp_path, change, words):
    folder = resealed(bundled.bundle, tmp_path / "bundle", change)
    with pytest.raises(UserError, match=words):
        infer_onnx.main(["--bundle", str(folder), "--image", str(image_of(bundled.data))])


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--provider", "tensorrt"], "lacks"),
        (["--provider", "tpu"], "lacks|tpu"),
        (["--sampler", "remask"], "graphs know"),
        (["--speculate", "2"], "one token after another"),
        (["--text", "no blank"], "blank"),
    ],
)
def test_flags_that_it_cannot_use(bundled, flags, words):
    good = ["--bundle", str(bundled.bundle), "--image", str(image_of(bundled.data))]
    with pytest.raises(UserError, match=words):
        infer_onnx.main([*good, *flags])


def test_images_that_it_cannot_use(bundled, tmp_path):
    image = image_of(bundled.data)
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:-200])
    Image.open(image).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    for flags, words in (
        (["--image", str(tmp_path / "cut.png")], "damaged"),
        (["--image", str(tmp_path / "cut.jpg")], "damaged"),
        (["--camera", "0"], "OpenCV|camera"),
        ([], "no picture|no image"),
    ):
        with pytest.raises(UserError, match=words):
            infer_onnx.main(["--bundle", str(bundled.bundle), *flags])
    with pytest.raises(UserError, match="no .*bundle.json"):
        infer_onnx.main(["--bundle", str(tmp_path), "--image", str(image)])


def test_an_error_is_one_line_and_status_2(bundled):
    words = ["infer_onnx.py", "--bundle", str(bundled.bundle), "--sampler", "remask"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
