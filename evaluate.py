"""Score a checkpoint or caption files: held-out text, blanks, captions, answers, or ratings.

Reads   a checkpoint, and its kind of data folder (--data_dir) or any text file (--text);
        or caption files and references in COCO's formats (--hypotheses, --references);
        or the ratings that people gave (--ratings); or run folders (--curves)
Writes  a table on the screen; with --json FILE all figures; with --picture FILE a PNG;
        with --rate PAGE a page on which people rate captions

A minute on a laptop:
    python evaluate.py --checkpoint checkpoints/best.pt --documents 100
All held-out documents; torchrun shares them among GPUs:
    python evaluate.py --checkpoint checkpoints/best.pt --json scores.json
Samples over a grid, judged by the twin (16 samples per cell took five minutes):
    python evaluate.py --checkpoint checkpoints/best.pt --samples --judge checkpoints_ar/best.pt
A captioner, judged by truth on every split, and against the number of calls:
    python evaluate.py --checkpoint checkpoints_caption_poc/best.pt --step_counts 1,2,4,8,32
Anybody's captions, with coco-caption's scores (seconds for 1,000 images):
    python evaluate.py --hypotheses results.json --references captions.json
    python evaluate.py --hypotheses results.json --references captions.json --rate rate.html
    python evaluate.py --ratings ratings_ann.json ratings_bo.json

The checkpoint, or what is given in its place, decides the job. A flag of another job is refused.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from base import config, files, flags, metrics
from base.config import SampleConfig
from base.files import UserError
from base.flags import setting
from base.jobs import Group, Job, add_jobs, for_kind, refuse_foreign
from caption import dialogue_scores as answers
from caption import results
from caption import scores as captions
from image import bounds
from loop import checkpoint, distributed, hardware
from show import curves, ratings
from text import fill_scores as blanks
from text import scores as text_scores


@dataclass
class Run:
    """What every job takes."""

    json: str | None = setting(None, "write all figures here", metavar="FILE")
    seed: int = setting(0, "decides the noise, the samples and the images to rate", at_least=0)
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)


@dataclass
class Trained:
    """What is scored."""

    checkpoint: str | None = setting(
        None, "what to score; none: the newest run below this folder", metavar="CHECKPOINT"
    )
    adapter: str | None = setting(None, "an adapter to merge into it", metavar="FILE")


@dataclass
class Ratings:
    """How ratings are summed up."""

    ratings: list[str] | None = setting(
        None, "ratings saved from a page of --rate: means, intervals, agreement", metavar="FILE"
    )


@dataclass
class Curves:
    """How learning curves are drawn."""

    curves: list[str] | None = setting(
        None, "draw the learning curves of these run folders into --picture", metavar="RUN"
    )
    figures: str | None = setting(
        None,
        "with --curves: figures of log.jsonl, a panel each, such as loss,val_bits_per_byte; "
        "none: loss, held-out figure, learning rate, tokens per second",
        metavar="NAMES",
    )
    picture: str | None = setting(None, "draw the figures into this PNG", metavar="FILE")


def score_ratings(options: Ratings, run: Run) -> dict:
    """What people said of each source of captions, and how far they agree."""
    result = ratings.summary(ratings.read(options.ratings))
    print(metrics.markdown(ratings.table(result)))
    print(ratings.agreement_line(result))
    return result


def draw_curves(options: Curves, run: Run) -> None:
    """The learning curves of run folders, as a PNG."""
    if not options.picture:
        found = "--curves without --picture"
        raise UserError(found, "a file to draw into", "add --picture curves.png")
    names = options.figures.split(",") if options.figures else []
    curves.learning_curves(options.picture, options.curves, names)


# --samplers and --step_counts stand for these two fields of SampleConfig.
SKIP = ("sampler", "steps")
# Settings that these networks do not know.
UNKNOWN = {"text": config.RECHECKING, "conditional": config.SPECIAL, "dialogue": config.SPECIAL}


def job_of(name: str, options: type, work, sampling: dict) -> Job:
    """The job that scores a checkpoint of this kind. sampling: its defaults for SampleConfig."""
    skip = (*SKIP, *UNKNOWN.get(name, ()))
    groups = (Group(Trained), Group(options), Group(SampleConfig, sampling, skip))
    return Job(name, groups, work)


# By the kind of the checkpoint, or by the flag that takes the checkpoint's place.
TRAINED = {
    "text": job_of("text", text_scores.TextScoring, text_scores.score, {}),
    "caption": job_of("caption", captions.CaptionScoring, captions.score, config.CAPTIONS),
    "dialogue": job_of("dialogue", answers.DialogueScoring, answers.score, config.CAPTIONS),
    "conditional": job_of("conditional", blanks.FillScoring, blanks.score, blanks.SAMPLING),
    "image": Job("image", (Group(Trained), Group(bounds.ImageScoring)), bounds.score),
}
GIVEN = {
    "hypotheses": Job("caption files", (Group(results.FileScoring),), results.score),
    "ratings": Job("ratings", (Group(Ratings),), score_ratings),
    "curves": Job("learning curves", (Group(Curves),), draw_curves),
}
EVERY_JOB = [*TRAINED.values(), *GIVEN.values()]


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Run)
    add_jobs(parser, EVERY_JOB)
    return parser.parse_args(argv)


def chosen(arguments) -> str | None:
    """The flag that takes the checkpoint's place, or None. Raises UserError on two such flags."""
    modes = [name for name in ("checkpoint", *GIVEN) if getattr(arguments, name)]
    if len(modes) > 1:
        found = " with ".join(f"--{name}" for name in modes)
        raise UserError(found, "one of them", "drop the others")
    return modes[0] if modes and modes[0] in GIVEN else None


def check(arguments, mode: str | None) -> None:
    """Refuse bad flags before anything long begins: values out of range, other jobs' flags."""
    # Without a mode the kind is unknown yet: every flag of a checkpoint may be right.
    jobs = [GIVEN[mode]] if mode else list(TRAINED.values())
    # The page is written before anybody has rated, so there are no figures yet.
    if arguments.rate and (arguments.json or arguments.ratings):
        found = f"--rate with --{'ratings' if arguments.ratings else 'json'}"
        raise UserError(found, "the page alone: figures come with --ratings", "drop one")
    where = f"with --{mode}" if mode else f"without --{' or --'.join(GIVEN)}"
    refuse_foreign(arguments, jobs, EVERY_JOB, where)
    # Resolved here only for its errors: a value out of range ends before a model is opened.
    for job in jobs:
        job.settings(arguments)
    # An hour of scoring must not end at a folder that cannot be written.
    for path in (arguments.json, arguments.picture, arguments.rate):
        if path:
            files.writable_folder(Path(path).parent)


def score_given(arguments, mode: str, run: Run) -> dict | None:
    """The figures of caption files or ratings; or learning curves, which have none."""
    # These jobs share no work among processes; each process would write the same file.
    if distributed.world() > 1:
        raise UserError(
            f"torchrun for {GIVEN[mode].name}",
            "work for more than one process: a checkpoint",
            "use one process",
        )
    (options,) = GIVEN[mode].settings(arguments)
    return GIVEN[mode].work(options, run)


def score_trained(arguments, run: Run) -> dict:
    """The figures of a checkpoint, whose kind decides the job."""
    # Not the newest of all kinds: an encoder of tools.train_encoder has no score here.
    path = arguments.checkpoint or checkpoint.newest(tuple(TRAINED))
    device = distributed.own_gpu(hardware.choose_device(run.device))
    opened = checkpoint.open_model(
        path, device, kinds=tuple(TRAINED), adapter=arguments.adapter, noises=config.NOISES
    )
    saved = opened[2]
    job = TRAINED[saved["kind"]]
    # The kind is known only now: a flag of another kind would be ignored without a word.
    refuse_foreign(arguments, [job], EVERY_JOB, for_kind(saved["kind"]))
    distributed.say(f"{path}: {checkpoint.describe(saved)}")
    _, *settings = job.settings(arguments)
    return {"checkpoint": str(path), **job.work(opened, *settings, run.seed)}


def main(argv=None):
    arguments = parse_args(argv)
    run, mode = flags.resolve(Run, arguments), chosen(arguments)
    check(arguments, mode)
    # After all checks of flags: a wrong flag ends before processes wait for each other.
    distributed.start()
    torch.set_num_threads(run.threads or torch.get_num_threads())
    result = score_given(arguments, mode, run) if mode else score_trained(arguments, run)
    # Learning curves have a picture and no figures. Rank 0 writes for all.
    if run.json and result is not None and distributed.leads():
        files.write_json(run.json, result)
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
