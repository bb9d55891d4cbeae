"""Turn raw stories into tokens: train a byte-level BPE, split by document, write memory-mapped arrays.

Reads   TinyStories from the hub (streamed, needs a network), or --input: a text file, a folder of .txt, or a glob
Writes  data_full/ (--out): train.npy, val.npy, their offsets, tokenizer.json, meta.json (see data.py)

Seconds on a laptop, from your own text:
    python data_prep.py --input stories.txt --vocab_size 4096
For real (2 GB of stories, streamed from the hub):
    python data_prep.py
The same by several processes or machines that share --out; whoever ends last joins the parts:
    for i in 0 1 2 3; do python data_prep.py --shard $i/4 & done; wait
Memory does not grow with the corpus (265 MB at 8 MB of text, 274 MB at 82 MB); 8 MB take 4 seconds on two cores.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from base import config, files, flags, folders
from base.files import UserError
from base.tokenizer import LARGEST, SMALLEST, Tokenizer
from text import data, parts, sources
from text.sources import HUB_DATASET


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--input",
        help=f"a text file, a folder (its .txt files), or a glob; without it, {HUB_DATASET} from the hub",
    )
    parser.add_argument(
        "--separator",
        default="<|endoftext|>",
        help="stands between documents (default %(default)s)",
    )
    parser.add_argument("--out", default="data_full", help="data folder (default %(default)s)")
    parser.add_argument(
        "--vocab_size",
        type=int,
        default=8192,
        help=f"tokens, {SMALLEST} to {LARGEST} (default 8192)",
    )
    parser.add_argument(
        "--tokenizer",
        help="use this tokenizer.json, or a checkpoint's (*.pt), instead of training one",
    )
    parser.add_argument(
        "--tokenizer_megabytes",
        type=int,
        default=200,
        help="train the tokenizer on the first so many MB (default 200)",
    )
    parser.add_argument(
        "--val_fraction",
        type=float,
        default=0.02,
        help="share of documents held out (default 0.02)",
    )
    parser.add_argument(
        "--max_documents", type=int, default=0, help="stop after so many; 0 means all (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the split (default 0)")
    parser.add_argument(
        "--shard", metavar="I/N", help="encode only this part of the documents, such as 0/8"
    )
    parser.add_argument(
        "--force", action="store_true", help="prepare again even if it is already done"
    )
    return parser.parse_args(argv)


class FirstPass:
    """Iterate over the first documents for the tokenizer, and note what the split must know."""

    def __init__(self, documents: Iterable[str], seed: int, limit: int):
        self.documents, self.seed, self.limit = documents, seed, limit
        self.count, self.smallest, self.largest = (
            0,
            math.inf,
            -math.inf,
        )  # documents, and the range of their draws

    def __iter__(self) -> Iterator[str]:
        size = 0
        for text in self.documents:
            self.count, size = self.count + 1, size + len(text)
            number = sources.draw(text, self.seed)
            self.smallest, self.largest = min(self.smallest, number), max(self.largest, number)
            yield text
            if size > self.limit:
                return


def read_tokenizer(path: str) -> Tokenizer:
    """From a tokenizer.json, or from a checkpoint."""
    if path.endswith(".pt"):
        from loop import checkpoint  # torch takes seconds to import

        return Tokenizer.from_json(checkpoint.load(path)["tokenizer"])
    text = files.existing(path, "a tokenizer.json or a checkpoint", "check --tokenizer").read_text(
        encoding="utf-8", errors="replace"
    )
    return Tokenizer.from_json(text)


def learn(args, paths: list[Path], tokenizer: Tokenizer | None) -> tuple[Tokenizer, float]:
    """The tokenizer, and the number below which a document's draw sends it to val."""
    stream = sources.stream(paths, args.separator, args.max_documents)
    documents = FirstPass(
        tqdm(stream, desc="tokenizer", unit=" documents"),
        args.seed,
        args.tokenizer_megabytes * 10**6,
    )
    if tokenizer:
        for _ in documents:
            pass
    else:
        tokenizer = Tokenizer.train(documents, args.vocab_size)
    where = args.input or HUB_DATASET
    if not documents.count:
        raise UserError(
            f"no text in {where}", "at least two documents", "check the file and --separator"
        )
    if documents.smallest == documents.largest:
        raise UserError(
            f"one document in {where}"
            + (f", {documents.count} times" if documents.count > 1 else ""),
            "at least two different ones, to train on and to hold out",
            f"check --separator {args.separator}",
        )
    just_above = math.nextafter(
        documents.smallest, 1
    )  # at least one document on each side, whatever the share
    return tokenizer, min(max(args.val_fraction, just_above), documents.largest)


def write(
    args, home: Path, shard: tuple[int, int], paths: list[Path], tokenizer: Tokenizer, limit: float
) -> tuple[dict, list[dict]]:
    """Encode and write both splits to `home`, or the shard's blocks of them; return their sizes, and the documents of each block."""
    writers, blocks = (
        {split: data.SplitWriter(home, split, tokenizer) for split in parts.SPLITS},
        [],
    )
    total = sum(path.stat().st_size for path in paths) or None
    try:
        with tqdm(
            total=None if args.max_documents else total, desc="tokens", unit="B", unit_scale=True
        ) as bar:
            for number, texts in enumerate(
                data.batches_of(
                    sources.stream(paths, args.separator, args.max_documents), parts.BLOCK
                )
            ):
                bar.update(sum(len(text.encode()) for text in texts))
                if number % shard[1] != shard[0]:
                    continue
                before = {split: writer.documents for split, writer in writers.items()}
                for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
                    writers["val" if sources.draw(text, args.seed) < limit else "train"].add(
                        ids, len(text.encode())
                    )
                blocks.append(
                    {split: writer.documents - before[split] for split, writer in writers.items()}
                )
        return {split: writer.finish() for split, writer in writers.items()}, blocks
    except OSError as error:
        raise files.os_error(error, home) from error
    finally:
        for writer in writers.values():
            writer.discard()


def main(argv=None):
    args = parse_args(argv)
    if not SMALLEST <= args.vocab_size <= LARGEST:
        raise UserError(
            f"--vocab_size {args.vocab_size}", f"{SMALLEST} to {LARGEST}", "choose such a size"
        )
    if not 0 < args.val_fraction < 1:
        raise UserError(
            f"--val_fraction {args.val_fraction}", "a share between 0 and 1", "choose such a share"
        )
    if not args.separator:
        raise UserError("an empty --separator", "the text between documents", "name it")
    paths = sources.find_files(args.input) if args.input else []
    source = [
        [path.name, path.stat().st_size, int(path.stat().st_mtime)] for path in paths
    ] or HUB_DATASET
    kept = read_tokenizer(args.tokenizer) if args.tokenizer else None
    settings = {
        "source": source,
        "settings": {
            name: value
            for name, value in vars(args).items()
            if name not in ("out", "force", "input", "shard")
        },
    }
    settings["settings"]["tokenizer"] = (
        kept and kept.fingerprint
    )  # its file may change while its name stays
    shard, command = (
        config.read_shard(args.shard),
        "data_prep.py " + " ".join(argv if argv is not None else sys.argv[1:]),
    )
    out = files.claim(args.out) if shard[1] == 1 else files.writable_folder(args.out)
    if (out / "meta.json").exists() and not args.force:
        meta = files.read_sealed(out / "meta.json", "a data folder's meta.json", "add --force")
        if {name: meta.get(name) for name in settings} == settings:
            train, val = (meta["splits"][split]["documents"] for split in ("train", "val"))
            print(
                f"already done: {out} holds {train:,} + {val:,} documents (--force does it again)"
            )
            return
        raise UserError(
            f"{out} made with other settings or from another source",
            "an empty folder",
            "choose another --out, or --force to replace it",
        )

    meta = (
        make_part(args, out, shard, paths, kept, settings, command)
        if shard[1] > 1
        else make(args, out, paths, kept, settings, command)
    )
    if meta:
        report(out, meta)


def make(
    args, out: Path, paths: list[Path], kept: Tokenizer | None, settings: dict, command: str
) -> dict:
    """The whole folder by this process; returns its meta.json."""
    tokenizer, limit = learn(args, paths, kept)
    (out / "meta.json").unlink(missing_ok=True)  # from here until the end the folder is not valid
    splits, _ = write(args, out, (0, 1), paths, tokenizer, limit)
    return data.write_meta(out, tokenizer, splits, {"command": command, **settings})


def make_part(
    args,
    out: Path,
    shard: tuple[int, int],
    paths: list[Path],
    kept: Tokenizer | None,
    settings: dict,
    command: str,
) -> dict | None:
    """One part, unless it is there; then, if all are, the whole folder's meta.json."""
    home = files.claim(parts.home_of(out, *shard))
    if args.force:
        (out / "meta.json").unlink(
            missing_ok=True
        )  # until the parts are joined the folder is not valid
    if args.force or not parts.read(out, *shard, settings):
        tokenizer, limit = learn(args, paths, kept)
        (home / "meta.json").unlink(missing_ok=True)
        splits, blocks = write(args, home, shard, paths, tokenizer, limit)
        names = [f"{name}.npy" for split in splits for name in (split, f"{split}_offsets")]
        folders.seal(
            home,
            "part",
            tokenizer,
            names,
            {"splits": splits, "blocks": blocks, "command": command, **settings},
        )
    return parts.join(out, shard[1], settings, command)


def report(out: Path, meta: dict) -> None:
    """What the folder holds."""
    for split, sizes in meta["splits"].items():
        print(
            f"{split:<6}{sizes['documents']:>10,} documents {sizes['tokens']:>13,} tokens {sizes['bytes']:>14,} bytes "
            f"({sizes['bytes'] / max(1, sizes['tokens'] - 2 * sizes['documents']):.2f} bytes a token)"
        )
    held_out = data.TextData(out, "val", 40)
    beginning = held_out.tokenizer.decode(held_out.rows(np.array([0]))[0][0])
    print(
        f"vocabulary {meta['vocab_size']}, data {meta['fingerprint']}; a held-out document begins:\n  {beginning} …"
    )
    print(
        f"next: python train.py --data_dir {out} --model_config tiny --max_steps 100 --batch_size 16"
    )


if __name__ == "__main__":
    files.run(main)
