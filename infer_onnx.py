"""Caption pictures, or fill blanks in a text, from a bundle: no torch, no other file than the bundle's own.

Reads   a bundle made by export_onnx.py, every file of which is checked first; pictures, a folder of them, or a camera
Writes  texts to the screen; --json one line each

In a bundle's folder, after pip install -r requirements-jetson.txt:
    python infer_onnx.py --bundle . --self_test
    python infer_onnx.py --bundle . --image x.jpg
    python infer_onnx.py --bundle . --image x.jpg --text "a [MASK] red [MASK]"
    python infer_onnx.py --bundle . --camera 0 --provider tensorrt
A text model's bundle:
    python infer_onnx.py --bundle . --text "Once upon a time [MASK*40]" --temperature 0.8 --seed 3

The same seed writes what generate.py and generate_caption.py write.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from base import bundle, files, flags, images, runtime
from base.config import SampleConfig
from base.files import UserError
from base.runtime import Runner
from base.templates import template_row

BATCH = 8


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("--bundle", default=".", help="folder of the bundle (default: this one)")
    parser.add_argument("--image", help="one picture")
    parser.add_argument(
        "--image_dir",
        help="all pictures in a folder and below it; a bad one is named and the rest goes on",
    )
    parser.add_argument(
        "--camera", help="a V4L2 number or device, or a GStreamer pipeline; needs OpenCV"
    )
    parser.add_argument(
        "--text",
        help='a text with blanks, "[MASK]" or "[MASK*20]": of a text model, or the captions\' common frame',
    )
    parser.add_argument(
        "--num_samples",
        type=int,
        default=1,
        help="texts of --image or --text; frames of --camera, 0: until Ctrl-C (default 1)",
    )
    parser.add_argument("--json", help="write one JSON object a line")
    parser.add_argument(
        "--self_test",
        action="store_true",
        help="compare checksums and golden outputs, measure speed and memory",
    )
    parser.add_argument(
        "--provider", default="cpu", metavar="cpu|cuda|tensorrt", help="what computes (default cpu)"
    )
    parser.add_argument(
        "--low_memory",
        action="store_true",
        help="a fifth less memory, slower: weights are kept once",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0: onnxruntime's own choice"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_settings(
        SampleConfig,
        skip=("top_p", "block_size", "factor", "entropy_bound", "remask", "remask_strength"),
    )
    return parser.parse_args(argv)


def open_camera(name: str):
    """A generator of frames as pictures. Raises UserError without OpenCV or without a camera."""
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "no OpenCV, which --camera needs",
            "the module cv2",
            "apt install python3-opencv (JetPack has it), or use --image",
        ) from error
    from PIL import Image

    source = (
        cv2.VideoCapture(int(name))
        if name.isdigit()
        else cv2.VideoCapture(name, cv2.CAP_GSTREAMER if "!" in name else cv2.CAP_ANY)
    )
    if not source.isOpened():
        raise UserError(
            f"no camera {name}",
            "a V4L2 number such as 0, a device, or a GStreamer pipeline",
            "see v4l2-ctl --list-devices",
        )
    source.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not one that has waited
    while True:
        there, frame = source.read()
        if not there:
            raise UserError(
                f"no frame from the camera {name}", "a picture", "check the cable and the pipeline"
            )
        yield Image.fromarray(frame[:, :, ::-1])  # OpenCV's order is BGR


def camera(args, runner: Runner, write) -> None:
    """A caption a frame, with the rate."""
    for number, frame in enumerate(open_camera(args.camera)):
        clock = time.perf_counter()
        (one,) = write(runner.pixels(frame)[None], 0)
        print(f"{one.text}   ({1 / (time.perf_counter() - clock):.1f} a second)", flush=True)
        if number + 1 == args.num_samples:
            return


def self_test(args, runner: Runner) -> int:
    """Checksums were right or we were not here. Golden outputs, speed, memory; status 1 if fewer agree than the bundle promises."""
    golden, mask, good = bundle.golden(runner.folder), runner.tokenizer.mask, True
    print(f"files: {len(runner.facts['files'])} as exported")
    if "picture" in golden:
        pixels = runner.pixels(golden["picture"].tobytes()).astype(int)
        off = int(np.abs(pixels - golden["images"][0]).max())
        good &= off <= 2  # Pillow's decoders and resizers may differ by a level between releases
        print(f"decode and resize: largest difference {off} of 255")
    noisy = {"sampler": "confidence", "steps": 8, "temperature": 0.8}
    for name, changes in (("as_shipped", {}), ("with_noise", noisy)):
        settings, expected = SampleConfig(**{**runner.facts["sampling"], **changes}), golden[name]
        if "tokens" in golden:
            settings.steps = min(settings.steps, 16)
            filled = runner.fill(golden["tokens"], golden["lengths"], {}, settings)[0]
            found = [
                row[:length].tolist() for row, length in zip(filled, golden["lengths"], strict=True)
            ]
        else:
            found = [
                one.ids
                for one in runner.write(
                    golden["images"] if "images" in golden else None,
                    settings,
                    rows=len(expected),
                    length=min(64, runner.length),
                )
            ]
        same = sum(
            ids == row[: len(ids)].tolist() and mask not in ids
            for ids, row in zip(found, expected, strict=True)
        )
        # Another machine's logits differ in the last digits: a near tie, or a random number near a boundary, may fall the other way.
        usual, limit = (0.75, "drawn") if settings.temperature else (0.9, "texts")
        limit = runner.facts["tolerances"].get(
            limit, usual
        )  # None: the gate does not judge these either
        good &= limit is None or same >= min(limit, usual) * len(expected)
        print(
            f"golden, {name.replace('_', ' ')}: {same} of {len(expected)} equal to the trained model's, token for token"
            + (" (not judged: a draw near a boundary falls the other way)" if limit is None else "")
        )
    seconds = []
    for _ in range(12):
        clock = time.perf_counter()
        runner.write(golden["images"][:1] if "images" in golden else None, runner.settings)
        seconds.append(time.perf_counter() - clock)
    print(
        f"speed: {1000 * float(np.median(seconds[2:])):.1f} ms a text, median of 10, batch 1, {args.provider}"
    )
    print(f"memory: {runtime.peak_mib():.0f} MiB at most")
    print("self-test passed" if good else "self-test FAILED: do not use this bundle here")
    return 0 if good else 1


def pictures(args, runner: Runner):
    """(names, pixels) of batches of the pictures asked for."""
    if args.image:
        pixels = runner.pixels(args.image)
        for first in range(0, args.num_samples, BATCH):
            count = min(BATCH, args.num_samples - first)
            yield [args.image] * count, np.stack([pixels] * count)
        return
    names, batch = [], []
    for path in images.list_images(args.image_dir):
        try:
            batch.append(runner.pixels(path))
            names.append(str(path))
        except (UserError, OSError) as error:
            print(
                f"skipped: {error if isinstance(error, UserError) else files.os_error(error, path)}",
                file=sys.stderr,
            )
        if len(batch) == BATCH:
            yield names, np.stack(batch)
            names, batch = [], []
    if batch:
        yield names, np.stack(batch)


def main(argv=None):
    args = parse_args(argv)
    if args.num_samples < (0 if args.camera else 1) or args.threads < 0:
        raise UserError(
            f"--num_samples {args.num_samples} --threads {args.threads}",
            "at least 1 sample, at least 0 threads",
            "choose such numbers",
        )
    runner = Runner(Path(args.bundle), args.provider, args.threads, low_memory=args.low_memory)
    settings = flags.resolve(SampleConfig, args, runner.facts["sampling"])
    if args.self_test:
        return self_test(args, runner)
    asked = [flag for flag in ("image", "image_dir", "camera") if getattr(args, flag)]
    if runner.conditioned and len(asked) != 1:
        raise UserError(
            "no picture, or several kinds",
            "one of --image, --image_dir, --camera",
            "choose one, or --self_test",
        )
    if not runner.conditioned and (asked or not args.text):
        raise UserError(
            "pictures for a text model" if asked else "no text",
            "a text with blanks",
            'give one, as in --text "Once upon a time [MASK*40]"',
        )
    if args.json:
        files.writable_folder(Path(args.json).parent)
    template = template_row(args.text, runner.tokenizer, runner.length) if args.text else None
    write = lambda pixels, first, rows=1: runner.write(
        pixels, settings, template=template, seed=args.seed, first=first, rows=rows
    )
    if args.camera:
        return camera(args, runner, write)
    lines = []
    for names, pixels in (
        pictures(args, runner) if runner.conditioned else [(["text"] * args.num_samples, None)]
    ):
        for name, one in zip(names, write(pixels, len(lines), len(names)), strict=True):
            lines.append(
                {
                    "image": name,
                    "caption": one.text,
                    "tokens": one.ids,
                    "step": one.step,
                    "probability": [round(p, 6) for p in one.probability],
                }
            )
            print(f"{name}: {one.text}" if runner.conditioned else one.text)
        if args.json:
            files.write_text(
                args.json, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            )
    if not lines:
        raise UserError(
            f"no picture in {args.image_dir} that can be read", "at least one", "check the files"
        )


if __name__ == "__main__":
    files.run(main)
