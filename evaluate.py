"""Score a checkpoint: on held-out text the bound (twin: exact likelihood), on held-out pictures the truth of captions.

Reads   a checkpoint, and data_full/ (--data_dir) or any text file (--text); for a captioner a folder of captioned scenes
Writes  a table on the screen; with --json FILE all figures; with --samples --picture FILE a PNG

A minute on a laptop:
    python evaluate.py --checkpoint checkpoints/best.pt --documents 100
All held-out documents, and samples judged by the twin over a grid of samplers and steps (16 a cell took five minutes):
    python evaluate.py --checkpoint checkpoints/best.pt --json scores.json
    python evaluate.py --checkpoint checkpoints/best.pt --samples --judge checkpoints_ar/best.pt --picture samplers.png
A captioner, judged by truth on every split, beside itself blind, its twin, and fewer steps:
    python evaluate.py --checkpoint checkpoints_caption_poc/best.pt --data_dir data_captions_synthetic --step_counts 1,2,4,8,32
The learning curves of two runs:
    python evaluate.py --curves checkpoints checkpoints_ar --picture curves.png
"""

import math
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

import caption_data
import caption_scores
import checkpoint
import config
import data
import evaluation
import files
import hardware
import metrics
import pictures
from config import SampleConfig
from files import UserError

DATA = {"text": "data_full", "caption": "data_captions_synthetic"}
GRID = "ancestral,first_hitting,confidence,entropy_bound,threshold,remask"
# Flags that mean nothing for a kind of checkpoint, and their defaults.
FOREIGN = {"text": {"splits": None, "twin": None, "guidance": 1.0, "rerank": 1, "probe_steps": 0},
           "caption": {"samples": False, "text": None, "judge": None, "documents": 0}}


def parse_args(argv):
    parser = config.Parser(__doc__)
    parser.add_argument("--checkpoint", help="default: the newest run below this folder")
    parser.add_argument("--data_dir", help=f"folder that a prep script made (default {DATA['text']}; captions: {DATA['caption']})")
    parser.add_argument("--text", help="score this UTF-8 text file instead")
    parser.add_argument("--separator", default="<|endoftext|>", help="between the documents of --text (default %(default)s)")
    parser.add_argument("--documents", type=int, default=0, help="score only the first so many; 0 means all (default 0)")
    parser.add_argument("--draws", type=int, default=8, help="noise levels a row; more narrows the noise, not the interval (default 8)")
    parser.add_argument("--estimator", default="count", metavar="|".join(config.ESTIMATORS), help="all give the same bound (default count)")
    parser.add_argument("--samples", action="store_true", help="draw samples over a grid and judge them instead")
    parser.add_argument("--judge", help="a twin's checkpoint; without it samples get no nats per token")
    parser.add_argument("--samplers", help=f"comma-separated (default {GRID}; captions: one, default confidence)")
    parser.add_argument("--step_counts", default="16,64", help="comma-separated (default %(default)s)")
    parser.add_argument("--num_samples", type=int, default=32, help="samples a cell of the grid (default 32)")
    parser.add_argument("--min_tokens", type=int, default=200, help="samples copy the lengths of held-out texts at least this long (default 200)")
    parser.add_argument("--splits", help="captions: comma-separated (default: every split of the data but train)")
    parser.add_argument("--twin", help="captions: the twin's checkpoint, scored beside")
    parser.add_argument("--guidance", type=float, default=1.0, help="captions: away from the blind model; 1 is none (default 1)")
    parser.add_argument("--rerank", type=int, default=1, help="captions: write so many lengths and keep the likeliest (default 1)")
    parser.add_argument("--probe_steps", type=int, default=0, help="captions: train a probe of the features, a ceiling (default 0: none)")
    parser.add_argument("--curves", nargs="+", metavar="RUN", help="draw the learning curves of these run folders into --picture, and stop")
    parser.add_argument("--picture", help="write the grid, or the curves, as a PNG")
    parser.add_argument("--json", help="write all figures here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_settings(SampleConfig, skip=("sampler", "steps"))
    return parser.parse_args(argv)


def open_data(args, tokenizer, saved, max_length: int) -> data.TextData:
    """The held-out rows: the val split of a data folder, or the documents of a text file."""
    if args.text:
        with tempfile.TemporaryDirectory() as folder:
            return data.from_text(args.text, args.separator, tokenizer, folder, max_length)
    held_out = data.TextData(args.data_dir, "val", max_length)
    data.check_tokenizer(held_out.meta["tokenizer"], tokenizer.fingerprint, args.data_dir)
    if held_out.meta["fingerprint"] != saved["data"]["fingerprint"]:
        print(f"note: {args.data_dir} is not the data that this model was trained on; its split may differ", file=sys.stderr)
    return held_out


def likelihood(args, model, saved, held_out) -> dict:
    """The bound or likelihood with its interval, and what the masked tokens say."""
    scores = evaluation.score_documents(model, saved["objective"], held_out, saved["statistics"], documents=args.documents or None, draws=args.draws,
                                        seed=args.seed, estimator=args.estimator, progress=lambda batches: tqdm(batches, unit="batch"))
    tokens, size = scores.tokens.sum(), scores.bytes.sum()
    bits = scores.nats / math.log(2)
    nats_per_token = scores.nats.sum() / tokens
    masked = max(1.0, scores.masked.sum())
    result = {"nats_per_token": nats_per_token, "nats_per_token_ci95": metrics.ratio_interval(scores.nats, scores.tokens),
              "bits_per_byte": bits.sum() / size, "bits_per_byte_ci95": metrics.ratio_interval(bits, scores.bytes),
              "perplexity_bound": math.exp(nats_per_token), "length_nats_per_token": scores.length_nats.sum() / tokens,
              "masked_cross_entropy": scores.cross_entropy.sum() / masked, "masked_accuracy": scores.hits.sum() / masked,
              "num_documents": len(scores.nats), "num_tokens": int(tokens), "num_bytes": int(size), "objective": saved["objective"]}
    if saved["objective"] == "diffusion":
        level = scores.by_level.sum(1)  # (4, 3): masked, cross-entropy, hits
        result["by_masked_share"] = [{"share": f"{q / 4:.2f} to {(q + 1) / 4:.2f}", "cross_entropy": float(level[q, 1] / max(1, level[q, 0])),
                                      "accuracy": float(level[q, 2] / max(1, level[q, 0]))} for q in range(4)]
    return result


def print_likelihood(result: dict) -> None:
    bound = result["objective"] == "diffusion"
    low, high = result["bits_per_byte_ci95"]
    print(f"{result['num_documents']} documents, {result['num_tokens']:,} tokens, {result['num_bytes']:,} bytes")
    print(f"{'bound' if bound else 'likelihood':<22}{result['nats_per_token']:.4f} nats per token"
          f"  ({result['length_nats_per_token']:.4f} of it for lengths)")
    print(f"{'':<22}{result['bits_per_byte']:.4f} bits per byte   [{low:.4f}, {high:.4f}]")
    print(f"{'perplexity' + (' bound' if bound else ''):<22}{result['perplexity_bound']:.3f} per token")
    print(f"{'masked tokens' if bound else 'next tokens':<22}{result['masked_cross_entropy']:.4f} nats  {100 * result['masked_accuracy']:.1f}% right")
    for row in result.get("by_masked_share", []):
        print(f"  masked {row['share']:<14}{row['cross_entropy']:.4f} nats  {100 * row['accuracy']:.1f}% right")


def sample_grid(args, model, tokenizer, saved, held_out, judge) -> list[dict]:
    """Figures of held-out human texts, then of samples with the same lengths for each sampler and step count."""
    whole = [text for text in held_out.whole_rows() if len(text) >= args.min_tokens][:args.num_samples]
    if len(whole) < args.num_samples:
        raise UserError(f"{len(whole)} whole held-out texts of {args.min_tokens} to {held_out.max_length} tokens",
                        f"--num_samples {args.num_samples} of them", "lower --num_samples or --min_tokens")
    lengths = [len(text) for text in whole]
    score = lambda texts: ({"judge_nats_per_token": evaluation.judge_texts(judge, texts, tokenizer.pad)} if judge else {}) | metrics.variety(texts)
    rows = [{"sampler": "human text", "steps": 0, "calls": 0, "seconds": 0.0, **score(whole)}]
    cells = [("left_to_right", max(lengths))] if saved["objective"] == "ar" else \
        [(name, int(steps)) for name in (args.samplers or GRID).split(",") for steps in args.step_counts.split(",")]
    for name, steps in tqdm(cells, unit="cell"):
        settings = config.resolve(SampleConfig, args, {"sampler": name, "steps": steps})
        clock = time.perf_counter()
        texts, calls = evaluation.draw(model, tokenizer, saved["objective"], lengths, settings, args.seed)
        rows.append({"sampler": name, "steps": steps, "calls": calls, "seconds": time.perf_counter() - clock, **score(texts)})
    return rows


def print_grid(rows: list[dict]) -> None:
    names = [name for name in rows[0] if name not in ("sampler", "steps", "seconds")]
    print("| sampler | steps | " + " | ".join(names) + " | seconds |\n|" + "---|" * (len(names) + 3))
    for row in rows:
        figures = [f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in names]
        print(f"| {row['sampler']} | {row['steps']} | " + " | ".join(figures) + f" | {row['seconds']:.1f} |")


def score_text(args, path, model, tokenizer, saved) -> dict:
    """The bound on held-out documents, or with --samples the grid, judged by the twin if there is one."""
    held_out = open_data(args, tokenizer, saved, model.config.max_length)
    if not args.samples:
        result = likelihood(args, model, saved, held_out)
        print_likelihood(result)
        return result
    judge = None
    if args.judge:
        judge, judge_tokenizer, judge_saved = checkpoint.open_model(args.judge, model.device)
        data.check_tokenizer(judge_tokenizer.fingerprint, tokenizer.fingerprint, args.judge)
        if judge_saved["objective"] != "ar":
            raise UserError(f"{args.judge} trained with --objective {judge_saved['objective']}", "an autoregressive twin",
                            "train one with train.py --objective ar")
    rows = sample_grid(args, model, tokenizer, saved, held_out, judge)
    print_grid(rows)
    if args.picture:
        pictures.sampler_grid(args.picture, rows)
    return {"samples": rows, "seed": args.seed, "num_samples": args.num_samples}


def score_captions(args, path, model, tokenizer, saved) -> dict:
    """Judge captions of every split by truth, print the table, draw the curve against steps."""
    known = [name for name in caption_data.read_meta(args.data_dir)["splits"] if name != "train"]
    splits = args.splits.split(",") if args.splits else known
    for name in splits:
        if name not in known:
            raise config.unknown(f"--splits {name}", name, known)
    if saved["objective"] == "ar" and (args.guidance != 1 or args.rerank > 1):
        raise UserError(f"--guidance {args.guidance} --rerank {args.rerank} for a twin", "neither", "drop them: they are the diffusion model's")
    twin = checkpoint.open_model(args.twin, model.device, kinds=("caption",)) if args.twin else None
    if twin and twin[2]["encoder"] != saved["encoder"]:
        raise UserError(f"{args.twin} on other features", f"those of {path}", "train both on one folder")
    settings = config.resolve(SampleConfig, args, {"sampler": args.samplers or "confidence", "steps": 64, "temperature": 0.0})
    step_counts = [int(n) for n in args.step_counts.split(",")]
    result = caption_scores.report(model, tokenizer, saved, args.data_dir, splits, settings, step_counts, twin=twin, guidance=args.guidance,
                                   rerank=args.rerank, probe_steps=args.probe_steps, seed=args.seed)
    for row in caption_scores.table(result):
        print("| " + " | ".join(row) + " |" + ("\n|" + "---|" * len(row) if not row[0] else ""))
    for key in ("swap", "twin_swap"):
        if key in result:
            print(f"{key}: " + "  ".join(f"{name} {100 * result[key][name]:.1f}" for name in ("text", "image", "group")))
    if args.picture:
        pictures.caption_steps(args.picture, result)
    return result


def check(args) -> None:
    """Refuse flags that contradict each other before anything long begins."""
    for flag in ("draws", "num_samples", "min_tokens", "rerank"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag} {getattr(args, flag)}", "at least 1", "choose such a number")
    if args.estimator not in config.ESTIMATORS:
        raise config.unknown(f"--estimator {args.estimator}", args.estimator, list(config.ESTIMATORS))
    if not all(word.isdigit() and int(word) for word in args.step_counts.split(",")):
        raise UserError(f"--step_counts {args.step_counts}", "numbers with commas between them", "for example 16,64")
    if args.curves and not args.picture:
        raise UserError("--curves without --picture", "a file to draw into", "add --picture curves.png")
    for path in filter(None, (args.json, args.picture)):
        files.writable_folder(Path(path).parent)


def check_kind(args, kind: str) -> None:
    """Refuse the flags that mean nothing for this kind of checkpoint."""
    for flag, default in FOREIGN[kind].items():
        if getattr(args, flag) != default:
            raise UserError(f"--{flag} for a {kind} checkpoint", "a flag that means something for it", f"drop --{flag}, or name another checkpoint")
    if args.picture and kind == "text" and not (args.samples and args.judge):
        raise UserError("--picture alone", "something to draw", "add --samples --judge checkpoints_ar/best.pt, or --curves RUN RUN")


def main(argv=None):
    args = parse_args(argv)
    check(args)
    if args.curves:
        pictures.learning_curves(args.picture, args.curves)
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    path = Path(args.checkpoint) if args.checkpoint else checkpoint.newest(tuple(checkpoint.KINDS))
    model, tokenizer, saved = checkpoint.open_model(path, hardware.choose_device(args.device))
    check_kind(args, saved["kind"])
    args.data_dir = args.data_dir or DATA[saved["kind"]]
    print(f"{path}: {checkpoint.describe(saved)}", file=sys.stderr)
    score = score_captions if saved["kind"] == "caption" else score_text
    result = score(args, path, model, tokenizer, saved)
    if args.json:
        files.write_json(args.json, {"checkpoint": str(path), **result})


if __name__ == "__main__":
    files.run(main)
