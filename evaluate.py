"""Score a checkpoint: the bound (twin: exact likelihood) of held-out text or of what is missing in it, the truth of captions; or anybody's captions.

Reads   a checkpoint, and data_full/ (--data_dir) or any text file (--text); for a captioner a folder of captioned pictures;
        or caption files and references in COCO's formats; or the ratings that people gave
Writes  a table on the screen; with --json FILE all figures; with --picture FILE a PNG; with --rate FILE a page to rate captions on

A minute on a laptop:
    python evaluate.py --checkpoint checkpoints/best.pt --documents 100
All held-out documents, and samples judged by the twin over a grid (16 a cell took five minutes); torchrun shares either among GPUs:
    python evaluate.py --checkpoint checkpoints/best.pt --json scores.json
    python evaluate.py --checkpoint checkpoints/best.pt --samples --judge checkpoints_ar/best.pt --picture samplers.png
A captioner, judged by truth on every split, beside itself blind, its twin, and fewer steps:
    python evaluate.py --checkpoint checkpoints_caption_poc/best.pt --data_dir data_captions_synthetic --step_counts 1,2,4,8,32
Anybody's captions, with coco-caption's scores (seconds for 1,000 images); people's opinion of them, blind, and what they said:
    python evaluate.py --hypotheses results.json --references captions.json
    python evaluate.py --hypotheses model.json twin.json --references captions.json --image_dir photos --rate rate.html
    python evaluate.py --ratings ratings_ann.json ratings_bo.json
"""

import sys
from pathlib import Path

import numpy as np
import torch

from base import config, files, flags, folders, metrics
from base.config import SampleConfig
from base.files import UserError
from caption import coco, results
from caption import data as caption_data
from caption import scores as caption_scores
from loop import checkpoint, distributed, hardware
from show import plots, ratings
from text import fill_scores
from text import scores as text_scores

DATA = {
    "text": "data_full",
    "caption": "data_captions_synthetic",
    "conditional": "data_conditional",
}
GRID = "ancestral,first_hitting,confidence,entropy_bound,threshold,remask"
# Flags that mean nothing for what is scored, and their defaults.
CAPTIONING = {
    "twin": None,
    "guidance": 1.0,
    "rerank": 1,
    "choose": "bound",
    "penalty": 0.5,
    "probe_steps": 0,
    "infill": False,
}
FOREIGN = {
    "text": {**CAPTIONING, "splits": None, "rate": None, "clip_score": None, "meteor_spice": False},
    "caption": {"samples": False, "text": None, "judge": None, "documents": 0},
}
FOREIGN["conditional"] = {
    name: default for name, default in FOREIGN["text"].items() if name != "twin"
} | fill_scores.FOREIGN
FOREIGN["files"] = {**FOREIGN["caption"], **CAPTIONING, "data_dir": None, "picture": None}
FOREIGN["ratings"] = {**FOREIGN["files"], "splits": None, "clip_score": None, "meteor_spice": False}


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("--checkpoint", help="default: the newest run below this folder")
    parser.add_argument(
        "--data_dir",
        help="a prep script's folder (default "
        + "; ".join(f"{kind}: {folder}" for kind, folder in DATA.items())
        + ")",
    )
    parser.add_argument("--text", help="score this UTF-8 text file instead")
    parser.add_argument(
        "--separator",
        default="<|endoftext|>",
        help="between the documents of --text (default %(default)s)",
    )
    parser.add_argument(
        "--documents",
        type=int,
        default=0,
        help="score only the first so many; 0 means all (default 0)",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=8,
        help="noise levels a row; more narrows the noise, not the interval (default 8)",
    )
    parser.add_argument(
        "--estimator",
        default="count",
        metavar="|".join(config.ESTIMATORS),
        help="all give the same bound (default count)",
    )
    parser.add_argument(
        "--samples", action="store_true", help="draw samples over a grid and judge them instead"
    )
    parser.add_argument(
        "--judge", help="a twin's checkpoint; without it samples get no nats per token"
    )
    parser.add_argument(
        "--samplers", help=f"comma-separated (default {GRID}; captions: one, default entropy_bound)"
    )
    parser.add_argument(
        "--step_counts", default="16,64", help="comma-separated (default %(default)s)"
    )
    parser.add_argument(
        "--num_samples",
        type=int,
        default=32,
        help="samples a cell of the grid, or pictures to rate (default 32)",
    )
    parser.add_argument(
        "--min_tokens",
        type=int,
        default=200,
        help="samples copy the lengths of held-out texts at least this long (default 200)",
    )
    parser.add_argument(
        "--splits", help="captions: comma-separated (default: every split of the data but train)"
    )
    parser.add_argument("--twin", help="captions and pairs: the twin's checkpoint, scored beside")
    parser.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        help="captions: away from the blind model; 1 is none (default 1)",
    )
    parser.add_argument(
        "--rerank",
        type=int,
        default=1,
        help="captions: write so many lengths and keep one (default 1)",
    )
    parser.add_argument(
        "--choose",
        default="bound",
        choices=config.CHOOSE,
        help="captions: the likeliest, or the one most like the others",
    )
    parser.add_argument(
        "--penalty",
        type=float,
        default=0.5,
        help="captions: of the blind model's bound in reranking (default 0.5)",
    )
    parser.add_argument(
        "--probe_steps",
        type=int,
        default=0,
        help="captions: train a probe of the features, a ceiling (default 0: none)",
    )
    parser.add_argument(
        "--infill",
        action="store_true",
        help="captions: hide spans of the human ones and see whether they are found again",
    )
    parser.add_argument(
        "--hypotheses",
        nargs="+",
        metavar="FILE",
        help="score these: COCO results, or lines of generate_caption.py --json",
    )
    parser.add_argument(
        "--references",
        help="for --hypotheses: COCO's captions_*.json, or Karpathy's dataset_*.json (--splits, default test)",
    )
    parser.add_argument(
        "--image_dir", help="for --hypotheses: the pictures, which --rate and --clip_score need"
    )
    parser.add_argument(
        "--clip_score",
        metavar="CLIP",
        help="captions: CLIPScore and RefCLIPScore too, by this hub name or folder of a CLIPModel",
    )
    parser.add_argument(
        "--meteor_spice",
        action="store_true",
        help="captions: METEOR and SPICE too; needs pycocoevalcap and Java",
    )
    parser.add_argument(
        "--rate",
        metavar="PAGE",
        help="captions: write a page on which people rate them, blind, beside a human's and a wrong one",
    )
    parser.add_argument(
        "--ratings",
        nargs="+",
        metavar="FILE",
        help="means, intervals and agreement of ratings saved from that page, and stop",
    )
    parser.add_argument(
        "--curves",
        nargs="+",
        metavar="RUN",
        help="draw the learning curves of these run folders into --picture, and stop",
    )
    parser.add_argument("--picture", help="write the grid, or the curves, as a PNG")
    parser.add_argument("--json", help="write all figures here")
    for flag, default in (("seed", 0), ("device", "auto"), ("threads", 0)):
        parser.add_argument(f"--{flag}", type=type(default), default=default)
    parser.add_settings(SampleConfig, skip=("sampler", "steps"))
    return parser.parse_args(argv)


def score_text(args, path, model, tokenizer, saved) -> dict:
    """The bound on held-out documents, or with --samples the grid, judged by the twin if there is one."""
    held_out = text_scores.open_data(
        args.data_dir, args.text, args.separator, tokenizer, saved, model.config.max_length
    )
    if not args.samples:
        result = text_scores.likelihood(
            model,
            saved,
            held_out,
            documents=args.documents,
            draws=args.draws,
            seed=args.seed,
            estimator=args.estimator,
        )
        text_scores.print_likelihood(result)
        return result
    judge = None
    if args.judge:
        judge, judge_tokenizer, judge_saved = checkpoint.open_model(args.judge, model.device)
        folders.check_tokenizer(judge_tokenizer.fingerprint, tokenizer.fingerprint, args.judge)
        if judge_saved["objective"] != "ar":
            raise UserError(
                f"{args.judge} trained with --objective {judge_saved['objective']}",
                "an autoregressive twin",
                "train one with train.py --objective ar",
            )
    cells = (
        [("left_to_right", 64)]
        if saved["objective"] == "ar"
        else [
            (name, int(steps))
            for name in (args.samplers or GRID).split(",")
            for steps in args.step_counts.split(",")
        ]
    )
    settings = [
        flags.resolve(SampleConfig, args, {"sampler": name, "steps": steps})
        for name, steps in cells
    ]
    rows = text_scores.sample_grid(
        model,
        tokenizer,
        saved,
        held_out,
        judge,
        settings,
        num_samples=args.num_samples,
        min_tokens=args.min_tokens,
        seed=args.seed,
    )
    text_scores.print_grid(rows)
    if args.picture and distributed.leads():
        plots.sampler_grid(args.picture, rows)
    return {"samples": rows, "seed": args.seed, "num_samples": args.num_samples}


def score_captions(args, path, model, tokenizer, saved) -> dict:
    """Judge captions of every split by truth, print the table, draw the curve against steps."""
    known = [name for name in caption_data.read_meta(args.data_dir)["splits"] if name != "train"]
    splits = args.splits.split(",") if args.splits else known
    for name in set(splits) - set(known):
        raise flags.unknown(f"--splits {name}", name, known)
    if saved["objective"] == "ar" and (args.guidance != 1 or args.rerank > 1):
        raise UserError(
            f"--guidance {args.guidance} --rerank {args.rerank} for a twin",
            "neither",
            "drop them: they are the diffusion model's",
        )
    twin = checkpoint.open_model(args.twin, model.device, kinds=("caption",)) if args.twin else None
    if twin and twin[2]["encoder"] != saved["encoder"]:
        raise UserError(
            f"{args.twin} on other features", f"those of {path}", "train both on one folder"
        )
    settings = flags.resolve(
        SampleConfig, args, config.CAPTIONS | ({"sampler": args.samplers} if args.samplers else {})
    )
    options = {"twin": twin, "seed": args.seed} | {
        name: getattr(args, name) for name in ("guidance", "rerank", "choose", "penalty")
    }
    if args.rate:
        shown = caption_scores.to_rate(
            model, tokenizer, saved, args.data_dir, splits[0], settings, args.num_samples, **options
        )
        return ratings.write(args.rate, shown, args.seed) if distributed.leads() else {}
    step_counts = [int(n) for n in args.step_counts.split(",")]
    more = caption_scores.more_figures(
        args.clip_score, args.meteor_spice, model.device, saved["encoder"]["encoder"]
    )
    result = caption_scores.report(
        model,
        tokenizer,
        saved,
        args.data_dir,
        splits,
        settings,
        step_counts,
        probe_steps=args.probe_steps,
        infill=args.infill,
        more=more,
        **options,
    )
    for line in caption_scores.lines(result):
        distributed.say(line, file=sys.stdout)
    if args.picture and distributed.leads():
        plots.caption_steps(args.picture, result)
    return result


def score_files(args) -> dict:
    """Score caption files against references, print the table with its intervals and its signature; or write the page to rate them on."""
    found = results.read(args.hypotheses, args.references, args.splits)
    names = [Path(path).stem for path in args.hypotheses]
    names = names if len(set(names)) == len(names) else args.hypotheses
    if args.rate:
        some = sorted(np.random.default_rng(args.seed).permutation(len(found))[: args.num_samples])
        shown = [
            {
                "name": found[i].file or found[i].id,
                "picture": results.picture(found[i], args.image_dir),
                "references": found[i].references,
                "captions": dict(zip(names, found[i].captions, strict=True)),
            }
            for i in some
        ]
        return ratings.write(args.rate, shown, args.seed)
    more, result = (
        caption_scores.more_figures(
            args.clip_score, args.meteor_spice, hardware.choose_device(args.device)
        ),
        {},
    )
    paths = [results.picture(image, args.image_dir) for image in found] if args.clip_score else []
    references = [image.references for image in found]
    on = Path(args.references or args.hypotheses[0]).name + (
        f",{args.splits}" if args.splits else ""
    )
    for number, name in enumerate(names):
        texts = [image.captions[number] for image in found]
        figures = coco.scores(texts, references, on, seed=args.seed) | more(
            texts, references, paths
        )
        result[name] = {key: value for key, value in figures.items() if key != "cider_each"}
    print(metrics.markdown(coco.table(result)))
    print(result[names[0]]["signature"])
    return result[names[0]] if len(names) == 1 else {"files": result}


def score_ratings(args) -> dict:
    """What people said of each source, and how far they agree."""
    result = ratings.summary(ratings.read(args.ratings))
    print(metrics.markdown(ratings.table(result)))
    print(ratings.agreement_line(result))
    return result


def check(args) -> None:
    """Refuse flags that contradict each other before anything long begins."""
    for flag in ("draws", "num_samples", "min_tokens", "rerank"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag} {getattr(args, flag)}", "at least 1", "choose such a number")
    if args.estimator not in config.ESTIMATORS:
        raise flags.unknown(
            f"--estimator {args.estimator}", args.estimator, list(config.ESTIMATORS)
        )
    if not all(word.isdigit() and int(word) for word in args.step_counts.split(",")):
        raise UserError(
            f"--step_counts {args.step_counts}",
            "numbers with commas between them",
            "for example 16,64",
        )
    modes = [flag for flag in ("checkpoint", "hypotheses", "ratings") if getattr(args, flag)]
    if len(modes) > 1:
        raise UserError(
            " with ".join(f"--{flag}" for flag in modes), "one of them", "drop the others"
        )
    for flag in ("references", "image_dir"):
        if getattr(args, flag) and not args.hypotheses:
            raise UserError(
                f"--{flag} without --hypotheses", "files to score", "add --hypotheses results.json"
            )
    coco.need_java() if args.meteor_spice else None
    if args.rate and (args.json or args.ratings):
        raise UserError(
            f"--rate with --{'ratings' if args.ratings else 'json'}",
            "the page alone: figures come with --ratings",
            "drop one",
        )
    if args.curves and not args.picture:
        raise UserError(
            "--curves without --picture", "a file to draw into", "add --picture curves.png"
        )
    for path in filter(None, (args.json, args.picture, args.rate)):
        files.writable_folder(Path(path).parent)


def check_kind(args, kind: str) -> None:
    """Refuse the flags that mean nothing for this kind of checkpoint, for caption files, or for ratings."""
    what = {"files": "caption files", "ratings": "ratings"}.get(kind, f"a {kind} checkpoint")
    for flag, default in FOREIGN[kind].items():
        if getattr(args, flag) != default:
            raise UserError(
                f"--{flag} for {what}",
                "a flag that means something for it",
                f"drop --{flag}, or score something else",
            )
    if distributed.world() > 1 and kind in ("files", "ratings"):
        raise UserError(
            f"torchrun for {what}",
            "work for more than one process: a checkpoint",
            "use one process",
        )
    if args.picture and kind == "text" and not (args.samples and args.judge):
        raise UserError(
            "--picture alone",
            "something to draw",
            "add --samples --judge checkpoints_ar/best.pt, or --curves RUN RUN",
        )


def main(argv=None):
    args = parse_args(argv)
    check(args)
    if args.curves:
        return plots.learning_curves(args.picture, args.curves)
    distributed.start()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    if args.hypotheses or args.ratings:
        check_kind(args, "files" if args.hypotheses else "ratings")
        result = score_files(args) if args.hypotheses else score_ratings(args)
    else:
        path = Path(args.checkpoint) if args.checkpoint else checkpoint.newest(tuple(DATA))
        model, tokenizer, saved = checkpoint.open_model(
            path, distributed.own_gpu(hardware.choose_device(args.device)), kinds=tuple(DATA)
        )
        check_kind(args, saved["kind"])
        args.data_dir = args.data_dir or DATA[saved["kind"]]
        distributed.say(f"{path}: {checkpoint.describe(saved)}")
        score = {"text": score_text, "caption": score_captions, "conditional": fill_scores.score}[
            saved["kind"]
        ]
        result = {"checkpoint": str(path), **score(args, path, model, tokenizer, saved)}
    if args.json and distributed.leads():
        files.write_json(args.json, result)
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
