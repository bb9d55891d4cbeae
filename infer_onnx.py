"""Caption images, or fill blanks in a text, from a bundle: without torch, from its files alone.
A policy's bundle is tested here; run_policy.py lets it act.

Reads   a bundle made by export_onnx.py, whose files are all checked first; images, or a camera
Writes  texts to the screen; --json one line per text

In a bundle's folder, after pip install -r requirements-jetson.txt:
    python infer_onnx.py --bundle . --self_test
    python infer_onnx.py --bundle . --image x.jpg
    python infer_onnx.py --bundle . --image x.jpg --text "a [MASK] red [MASK]"
    python infer_onnx.py --bundle . --camera 0 --provider tensorrt
    python infer_onnx.py --bundle . --image x.jpg --adapter photos
A text model's bundle:
    python infer_onnx.py --bundle . --text "Once upon a time [MASK*40]" --temperature 0.8 --seed 3

The same seed writes the same texts as generate.py and generate_caption.py.
"""

from base import environment

if __name__ == "__main__":
    environment.check()  # before an import that an old Python or an old module would break

import functools
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from base import bundle, files, flags, images, policy_runner, runtime
from base.bundle import PROVIDERS
from base.config import SPECIAL, SampleConfig
from base.files import UserError
from base.flags import setting
from base.policy_runner import BundleMaker
from base.runtime import Runner
from base.templates import template_row

BATCH = 8  # images at once; does not change the captions
# No flags for these. entropy_bound is fixed when the bundle is made. The graphs do not have the
# others: top_p would need a sort, which slows each step.
NOT_IN_GRAPHS = (
    *("top_p", "block_size", "factor", "entropy_bound", *SPECIAL, "remask", "remask_strength"),
)


@dataclass
class Job:
    """What to write, and on what."""

    bundle: str = setting(".", "folder of the bundle", metavar="FOLDER")
    image: str | None = setting(None, "an image", metavar="FILE")
    image_dir: str | None = setting(
        None,
        "all images in a folder and below it; a damaged image is named and left out",
        metavar="FOLDER",
    )
    camera: str | None = setting(
        None, "a V4L2 number or device, or a GStreamer pipeline; needs OpenCV", metavar="NAME"
    )
    text: str | None = setting(
        None,
        'a text with blanks, "[MASK]" or "[MASK*20]"; with images: the frame of all captions',
        metavar="TEXT",
    )
    num_samples: int = setting(
        1, "texts of --image or --text; frames of --camera, 0: until Ctrl-C", at_least=0
    )
    json: str | None = setting(None, "write one JSON object per line", metavar="FILE")
    self_test: bool = setting(
        False, "compare checksums and golden outputs, measure speed and memory"
    )
    adapter: str | None = setting(None, "one of the bundle's (default: none)", metavar="NAME")
    provider: str = setting("cpu", "what computes", choices=PROVIDERS)
    low_memory: bool = setting(False, "a fifth less memory, slower: weights are kept once")
    threads: int = setting(0, "CPU threads; 0: onnxruntime's own choice", at_least=0)
    seed: int = setting(0, "same seed, same texts")

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Job)
    # Each bundle brings its own settings, so SampleConfig's defaults would be wrong in --help.
    own = {field.name: "the bundle's own" for field in fields(SampleConfig)}
    parser.add_settings(SampleConfig, skip=NOT_IN_GRAPHS, said=own)
    return parser.parse_args(argv)


def check(job: Job, conditioned: bool) -> None:
    """Refuse flags that contradict each other or the bundle. conditioned: it captions images."""
    if job.num_samples == 0 and not job.camera:
        raise UserError("--num_samples 0 without --camera", "at least 1", "choose such a number")
    kinds = sum(map(bool, (job.image, job.image_dir, job.camera)))
    if conditioned and kinds != 1:
        raise UserError(
            "no image, or several kinds",
            "one of --image, --image_dir, --camera",
            "choose one, or --self_test",
        )
    if not conditioned and (kinds or not job.text):
        raise UserError(
            "images for a text model" if kinds else "no text",
            "a text with blanks",
            'give one, as in --text "Once upon a time [MASK*40]"',
        )
    if job.json:
        # Before the work: a folder that cannot be written would cost all texts.
        files.writable_folder(Path(job.json).parent)


def test_policy(job: Job) -> int:
    """The self-test of a policy's bundle. Raises UserError for any other work."""
    if not job.self_test or job.adapter:
        raise UserError(
            f"{job.bundle}, a bundle of a policy",
            "a captioner's or a text model's, or --self_test alone",
            "let a policy act with run_policy.py --bundle",
        )
    return policy_runner.self_test(BundleMaker(job.bundle, job.provider, job.threads))


def watch(job: Job, runner: Runner, write) -> None:
    """A caption per frame of the camera, with the rate."""
    for number, frame in enumerate(images.open_camera(job.camera), 1):
        clock = time.perf_counter()
        # first=0: the same frame gets the same caption whenever it comes.
        caption = write(runner.pixels(frame)[None], first=0)[0].text
        print(f"{caption}   ({1 / (time.perf_counter() - clock):.1f} per second)", flush=True)
        if number == job.num_samples:
            return


def batches(job: Job, runner: Runner):
    """(names, pixels) of batches; a text model's pixels are None."""
    if not runner.conditioned:
        yield ["text"] * job.num_samples, None
        return
    if job.image:
        pixels = runner.pixels(job.image)
        for first in range(0, job.num_samples, BATCH):
            count = min(BATCH, job.num_samples - first)
            # The same pixels for each row: rows differ by their random numbers.
            yield [job.image] * count, np.stack([pixels] * count)
        return
    names, batch = [], []
    for path in images.list_images(job.image_dir):
        try:
            batch.append(runner.pixels(path))
            names.append(str(path))
        except (UserError, OSError) as error:  # a damaged image must not stop a whole folder
            message = error if isinstance(error, UserError) else files.os_error(error, path)
            print(f"skipped: {message}", file=sys.stderr)
        if len(batch) == BATCH:
            yield names, np.stack(batch)
            names, batch = [], []
    if batch:
        yield names, np.stack(batch)


def record(name: str, text: runtime.Written) -> dict:
    """What --json writes for a text."""
    return {
        "image": name,
        "caption": text.text,
        "tokens": text.ids,
        "step": text.step,
        "probability": [round(value, 6) for value in text.probability],
        "calls": text.calls,
    }


def write_all(job: Job, runner: Runner, write) -> None:
    """Write the texts batch by batch, and --json after each. Raises UserError if there is none."""
    records: list[dict] = []
    for names, pixels in batches(job, runner):
        # The number of a text decides its draws, so --image_dir does not depend on BATCH.
        texts = write(pixels, first=len(records), rows=len(names))
        for name, text in zip(names, texts, strict=True):
            records.append(record(name, text))
            print(f"{name}: {text.text}" if runner.conditioned else text.text)
        if job.json:
            # After every batch, so that a stop keeps what is written.
            files.write_lines(job.json, records)
    if not records:
        raise UserError(
            f"no image in {job.image_dir} that can be read", "at least one", "check the files"
        )


def main(argv=None):
    arguments = parse_args(argv)
    job = flags.resolve(Job, arguments)
    if bundle.read(job.bundle)["kind"] == "policy":
        return test_policy(job)
    runner = Runner(
        job.bundle, job.provider, job.threads, low_memory=job.low_memory, adapter=job.adapter
    )
    # A layer below the flags: the settings that the export tested, unless a flag differs.
    settings = flags.resolve(SampleConfig, arguments, runner.facts["sampling"])
    if job.self_test:
        # Before `check`, because a self-test needs no image.
        return runtime.self_test(runner)
    check(job, runner.conditioned)
    template = template_row(job.text, runner.tokenizer, runner.length) if job.text else None
    write = functools.partial(runner.write, settings=settings, template=template, seed=job.seed)
    if job.camera:
        watch(job, runner, write)
    else:
        write_all(job, runner, write)


if __name__ == "__main__":
    files.run(main)
