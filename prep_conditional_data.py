"""Turn stories into pairs: the first sentence and the rest, both ends and the middle, texts with blanks.

Reads   a denoiser's checkpoint (--denoiser, default: the newest text run), whose tokenizer and length the pairs get; and
        data_full/ (--data_dir), whose held-out documents stay held out; or --input: a text file, a folder of .txt, or a glob.
        Without either, TinyStories from the hub (streamed, needs a network)
Writes  data_conditional/ (--out): train and val documents, their blanks, tokenizer.json, meta.json (see pairs.py)

Seconds on a laptop, from your own text:
    python prep_conditional_data.py --input stories.txt --denoiser checkpoints/best.pt
For real, from the very documents that the denoiser was trained on:
    python prep_conditional_data.py

Documents longer than the denoiser's rows are kept, so that copies of them can be found, but make no pairs.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from base import files, flags, folders
from base.files import UserError
from base.tokenizer import Tokenizer
from loop import checkpoint
from text import data, pairs, sources


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--denoiser",
        help="checkpoint whose tokenizer and length to use (default: the newest text run below this folder)",
    )
    parser.add_argument(
        "--data_dir",
        default="data_full",
        help="folder from data_prep.py, read if it is there (default %(default)s)",
    )
    parser.add_argument(
        "--input", help="instead: a text file, a folder (its .txt files), or a glob"
    )
    parser.add_argument(
        "--separator",
        default="<|endoftext|>",
        help="stands between the documents of --input (default %(default)s)",
    )
    parser.add_argument(
        "--val_fraction",
        type=float,
        default=0.02,
        help="share of the documents of --input held out (default 0.02)",
    )
    parser.add_argument(
        "--out", default="data_conditional", help="folder of pairs (default %(default)s)"
    )
    parser.add_argument(
        "--blanks",
        type=int,
        default=2,
        help="pairs with one to four blanks for each document (default 2)",
    )
    parser.add_argument(
        "--max_documents",
        type=int,
        default=0,
        help="stop after so many (from --data_dir: of each split); 0 means all (default 0)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="decides the blanks, and the split of --input (default 0)",
    )
    parser.add_argument(
        "--force", action="store_true", help="prepare again even if it is already done"
    )
    return parser.parse_args(argv)


def from_folder(args, tokenizer: Tokenizer) -> Iterator[tuple[str, str, np.ndarray]]:
    """(split, text, ids) of every document of a data folder: its tokens are read back to the very bytes."""
    for split in ("train", "val"):
        held = data.TextData(args.data_dir, split, 1 << 30)
        folders.check_tokenizer(held.tokenizer.fingerprint, tokenizer.fingerprint, args.data_dir)
        for number, (start, end) in enumerate(
            zip(held.offsets[:-1], held.offsets[1:], strict=True)
        ):
            if args.max_documents and number == args.max_documents:
                break
            ids = np.asarray(held.tokens[start + 1 : end - 1])
            yield split, tokenizer.decode(ids), ids


def from_text(
    args, paths: list[Path], tokenizer: Tokenizer
) -> Iterator[tuple[str, str, np.ndarray]]:
    """(split, text, ids) of every document of text files, or of TinyStories; the split is data_prep.py's for the same seed and share."""
    for texts in data.batches_of(sources.stream(paths, args.separator, args.max_documents), 1000):
        for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
            yield "val" if sources.draw(text, args.seed) < args.val_fraction else "train", text, ids


def write(args, documents, tokenizer: Tokenizer, max_length: int) -> dict:
    """Write both splits; return their sizes. Raises UserError if one has no pair."""
    writers = {
        split: pairs.PairWriter(args.out, split, tokenizer, max_length)
        for split in ("train", "val")
    }
    try:
        for number, (split, text, ids) in enumerate(tqdm(documents, unit=" documents")):
            writers[split].add(text, ids, np.random.default_rng((args.seed, number)), args.blanks)
        for split, writer in writers.items():
            if not any(writer.pairs.values()):
                raise UserError(
                    f"{writer.documents.documents} documents in the {split} split, none with a pair",
                    f"documents of two sentences or more and at most {max_length - pairs.ROOM} tokens",
                    "give more text, or another --val_fraction or --separator",
                )
        return {split: writer.finish() for split, writer in writers.items()}
    except OSError as error:
        raise files.os_error(error, args.out) from error
    finally:
        for writer in writers.values():
            writer.discard()


def main(argv=None):
    args = parse_args(argv)
    if not 0 < args.val_fraction < 1 or args.blanks < 0:
        raise UserError(
            f"--val_fraction {args.val_fraction} --blanks {args.blanks}",
            "a share between 0 and 1, and at least 0",
            "correct them",
        )
    paths = sources.find_files(args.input) if args.input else []
    saved = checkpoint.load(
        args.denoiser or checkpoint.newest(),
        kinds=("text",),
        do="train one with train.py, or name it with --denoiser",
    )
    tokenizer, max_length = Tokenizer.from_json(saved["tokenizer"]), saved["model"]["max_length"]
    folder = not paths and Path(args.data_dir).exists()
    if folder:
        source: object = data.TextData(args.data_dir, "train", max_length).meta["fingerprint"]
    else:
        source = [
            [path.name, path.stat().st_size, int(path.stat().st_mtime)] for path in paths
        ] or sources.HUB_DATASET
    settings = {
        "source": source,
        "max_length": max_length,
        "tokenizer": tokenizer.fingerprint,
        "settings": {
            name: getattr(args, name)
            for name in ("separator", "val_fraction", "blanks", "max_documents", "seed")
        },
    }
    print(
        f"documents from {args.data_dir if folder else args.input or sources.HUB_DATASET}",
        file=sys.stderr,
    )
    out = files.claim(args.out)
    if (out / "meta.json").exists() and not args.force:
        meta = files.read_sealed(out / "meta.json", "a folder's meta.json", "add --force")
        if {name: meta.get(name) for name in settings} == settings:
            print(
                f"already done: {out} holds {sum(meta['splits']['train']['pairs'].values()):,} training pairs (--force does it again)"
            )
            return
        raise UserError(
            f"{out} made with other settings, from another source or for another denoiser",
            "an empty folder",
            "choose another --out, or --force to replace it",
        )

    (out / "meta.json").unlink(missing_ok=True)  # from here until the end the folder is not valid
    documents = from_folder(args, tokenizer) if folder else from_text(args, paths, tokenizer)
    splits = write(args, documents, tokenizer, max_length)
    command = "prep_conditional_data.py " + " ".join(argv if argv is not None else sys.argv[1:])
    meta = pairs.write_meta(out, tokenizer, splits, {"command": command, **settings})
    for split, sizes in splits.items():
        print(
            f"{split:<6}{sizes['documents']:>9,} documents, {sizes['fitting_documents']:,} of them fit: "
            + ", ".join(f"{count:,} {kind}" for kind, count in sizes["pairs"].items())
        )
    example = pairs.PairData(out, "val", "context").pair(0)
    print(
        f"pairs {meta['fingerprint']}; a held-out pair, {example.kind}:\n  {tokenizer.decode(example.given[0])} [MASK*{len(example.blanks[0])}]"
        f"{tokenizer.decode(example.given[1])}"
    )
    print(f"next: python train_conditional.py --data_dir {out}")


if __name__ == "__main__":
    files.run(main)
