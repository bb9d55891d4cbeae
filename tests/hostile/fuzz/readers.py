"""Every reader of the project, fed with what nobody meant to write. Only success or a UserError may come out.

A reader is a function of (rng, folder): it makes one input, by damaging a good one or inventing one, and reads it as the
project does. rng is a random.Random whose bits come from hypothesis, so that a failure shrinks and is kept as an example.
"""

import copy
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import generate
import prep_conditional_data
import train
import train_captioning
from base import bundle, config, files, flags, folders, images
from base.files import UserError
from base.runtime import Runner
from base.templates import template_row
from base.tokenizer import Tokenizer
from caption import data as caption_data
from caption import identity, photos
from caption import results as caption_results
from caption.collected import Collected
from loop import checkpoint
from net import image_encoders
from show import ratings
from tests.making import tables
from tests.making.captioned import by_hand, save_encoder
from tests.making.corpus import make_data, make_run
from text import blanks, data, forms, pairs, sources

ODD = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    -(2**70),
    0.5,
    float("nan"),
    float("inf"),
    "",
    "a",
    "../x",
    "/etc/passwd",
    "\0",
    "\ud800",
    "\u2028",
    "🐝",
    "[MASK]",
    [],
    {},
    [[]],
    {"": None},
    ["a", 1],
    "9" * 5000,
]
WORDS = [
    "[MASK]",
    "[MASK*3]",
    "[MASK*0]",
    "[MASK*99999999999]",
    "[MASK*-1]",
    "[MASK*x]",
    "[EOS]",
    "[PAD]",
    " ",
    "a",
    "\n",
    "é",
    "🐝",
    "\udcff",
    "\0",
    "<|endoftext|>",
]
NOISE = [
    b"",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r\n",
    b'"',
    b"{",
    b"[",
    b"nan",
    b"1e999",
    b"-" * 30,
    b"9" * 30,
    b"[" * 3000,
    b",",
    b"\t",
    b"#3",
    b"..",
    b"/",
]


def damaged(raw: bytes, rng) -> bytes:
    """Some flips, cuts, copies and insertions."""
    raw = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at, size = rng.randrange(len(raw) + 1), rng.choice((1, 1, 2, 8, 64, 1000))
        how = rng.randrange(5)
        if how == 0 and at < len(raw):
            raw[at] = rng.randrange(256)
        elif how == 1:
            del raw[at : at + size]
        elif how == 2:
            raw[at:at] = rng.choice(NOISE)
        elif how == 3:
            raw[at:at] = raw[rng.randrange(len(raw) + 1) :][:size]
        else:
            raw[at : at + size] = rng.choice(NOISE) * 2
    return bytes(raw)


def altered(value, rng, depth: int = 0):
    """A JSON value with something in it replaced, removed, renamed or repeated."""
    if rng.random() < 0.15 + 0.1 * depth or not isinstance(value, (dict, list)) or not value:
        return copy.deepcopy(rng.choice(ODD))
    value = copy.copy(value)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    how = rng.randrange(6)
    if how == 0:
        del value[key]
    elif how == 1 and isinstance(value, dict):
        value[str(rng.choice(ODD))[:50]] = value.pop(key)
    elif how == 1:
        value.insert(key, value[key])
    else:
        value[key] = altered(value[key], rng, depth + 1)
    return value


def put(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def put_json(path: Path, value, rng, sealed: bool = False) -> Path:
    """Altered JSON, or damaged bytes of the good one; `sealed`: with the right checksum, so that what lies behind it is reached."""
    value = altered(value, rng)
    if sealed and isinstance(value, dict):
        files.write_sealed(path, value)
        return path
    text = json.dumps(value).encode()
    return put(path, damaged(text, rng) if rng.random() < 0.3 else text)


class World:
    """Good files of every kind, small."""

    def __init__(self, root: Path):
        self.root = root
        make_data(root / "data")
        make_run(root / "data", root / "run", "--max_steps", "1", "--d_model", "8", "--heads", "1")
        prep_conditional_data.main(
            [
                "--denoiser",
                str(root / "run" / "best.pt"),
                "--data_dir",
                str(root / "data"),
                "--out",
                str(root / "pairs"),
            ]
        )
        by_hand(
            root / "captions",
            [
                {
                    "image": f"{n}.png",
                    "split": ("train", "val")[n % 2],
                    "captions": ["a dog", "two \u2028 cats"],
                }
                for n in range(6)
            ],
        )
        self.tokenizer = Tokenizer.from_json((root / "data" / "tokenizer.json").read_text())
        facts = {
            "kind": "text",
            "objective": "diffusion",
            "build": "x",
            "model": {"max_length": 48, "layers": 1, "heads": 1, "d_model": 8},
            "sampling": flags.to_dict(config.SampleConfig()),
            "graphs": {"cpu": {"loop": "loop.onnx"}, "tensorrt": {}},
        }
        (root / "bundle").mkdir()
        shutil.copy(root / "data" / "tokenizer.json", root / "bundle")
        (root / "bundle" / "loop.onnx").write_bytes(b"graph")
        np.savez_compressed(
            root / "bundle" / "golden.npz", tokens=np.arange(9), lengths=np.arange(3)
        )
        bundle.seal(root / "bundle", facts)
        picture = Image.effect_noise((24, 18), 50).convert("RGB")
        self.pictures = []
        for kind, mode in (
            ("PNG", "RGB"),
            ("PNG", "P"),
            ("PNG", "I;16"),
            ("JPEG", "RGB"),
            ("WEBP", "RGB"),
            ("GIF", "P"),
            ("BMP", "RGB"),
            ("TIFF", "RGB"),
            ("TIFF", "F"),
        ):
            made = io.BytesIO()
            (Image.new("I;16", (9, 9), 700) if mode == "I;16" else picture.convert(mode)).save(
                made, kind
            )
            self.pictures.append(made.getvalue())
        self.model = (root / "run" / "best.pt").read_bytes()


COCO = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b/c.png"}],
    "annotations": [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "two\n cats"}],
}
KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filename": "a.png",
            "filepath": "x",
            "split": "restval",
            "cocoid": 1,
            "sentences": [{"raw": "a dog"}],
        },
        {"filename": "b.png", "split": "test", "imgid": 2, "sentences": [{"raw": "cats"}]},
    ],
}
CSV = b'image,caption\na.png,"a ""big"", dog"\nb.png,two cats\n'
TSV = b"a.jpg#0\ta dog\na.jpg#1\ttwo, cats\n"
RESULTS = [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "cats"}]
LINES = [
    {"image": "a.png", "caption": "a dog", "references": ["one dog"]},
    {"image": "b.png", "caption": "cats", "references": ["cats", "two"]},
]
RATINGS = {
    "format": 1,
    "kind": "caption ratings",
    "page": "p",
    "rater": "r",
    "ratings": [
        {"image": "a", "caption": "c", "sources": ["human"], "rating": 3},
        {"image": "b", "caption": "c", "sources": ["m"], "rating": 5},
    ],
}


def read_settings(world, rng, folder):
    path = put_json(
        folder / "x.json", {"d_model": 16, "seed": 3, "learning_rate": 0.1, "compile": False}, rng
    )
    values = flags.read_config_file(path, train.parse_args([]).parser)
    flags.resolve(config.TrainConfig, train.parse_args([]), values)
    flags.resolve(config.ModelConfig, train.parse_args([]), values)


def read_flags(world, rng, folder):
    parser = rng.choice((train, train_captioning, generate)).parse_args
    names = [
        "--seed",
        "--d_model",
        "--max_steps",
        "--batch_size",
        "--learning_rate",
        "--ema",
        "--compile",
        "--no-compile",
        "--sampler",
        "--skip_nonfinite",
        "--clip",
        "--top_p",
        "--temperature",
        "--precision",
        "--mlp",
        "-x",
        "x",
        "--",
        "--seed=3",
        "--threads",
    ]
    values = [
        "1",
        "-1",
        "0",
        "nan",
        "inf",
        "1e999",
        "0x3",
        "",
        "tru",
        "9" * 5000,
        "1_000",
        "confidence",
        "bf16",
        "é",
        "\udcff",
        "--",
    ]
    words = [rng.choice(names if rng.random() < 0.5 else values) for _ in range(rng.randrange(7))]
    args = parser(words)
    for kind in (config.TrainConfig, config.SampleConfig, config.ModelConfig):
        flags.resolve(kind, args)


def arrays(world, rng, folder, name: str, kind: str):
    """A folder of arrays: one file of it damaged, found out by its checksum; or, with a right checksum or none, by what it says."""
    target = folder / "folder"
    shutil.copytree(world.root / name, target)
    meta = files.read_sealed(target / "meta.json", "", "")
    victim = rng.choice([path for path in sorted(target.iterdir()) if path.name != ".lock"])
    if victim.name == "meta.json":
        put_json(victim, meta, rng, sealed=rng.random() < 0.7)
    elif victim.suffix == ".npy" and rng.random() < 0.5:
        values = np.array(np.load(victim, allow_pickle=False))
        flat = values.reshape(-1)
        for _ in range(rng.randrange(1, 4)):
            flat[rng.randrange(len(flat))] = rng.choice((0, 1, 2, 5, 255, 30_000))
        values = values[rng.randrange(3) :] if rng.random() < 0.2 else values
        if rng.random() < 0.3 and values.dtype.kind == "i":
            values = -values
        np.save(victim, values if rng.random() < 0.9 else values.astype(np.float64))
    else:
        put(victim, damaged(victim.read_bytes(), rng))
    if victim.name != "meta.json" and rng.random() < 0.7 and "files" in meta:
        files.write_sealed(
            target / "meta.json",
            {**meta, "files": files.listed(target, meta["files"])}
            if rng.random() < 0.5
            else {name: value for name, value in meta.items() if name != "files"},
        )
    if victim.name == "captions.jsonl" and rng.random() < 0.7:
        files.write_sealed(
            target / "meta.json", {**meta, "fingerprint": files.sha256(victim.read_bytes())}
        )
    split = rng.choice(("train", "val"))
    if kind == "text":
        held = data.TextData(target, split, rng.choice((8, 48)))
        held.rows(np.arange(min(4, len(held.starts))))
    elif kind == "pairs":
        held = pairs.PairData(target, split, rng.choice(forms.FORMS))
        held.batch(range(min(4, len(held))))
        held.length_histograms()
    else:
        held = caption_data.CaptionData(target, split)
        held.batch([0], [[0]])
        for record in held.records:
            caption_data.image_path(target, record)


def read_checkpoint(world, rng, folder):
    """Damaged bytes; or a damaged pickle in a zip whose checksums are right."""
    path = folder / "x.pt"
    if rng.random() < 0.4:
        put(path, damaged(world.model, rng))
    else:
        with zipfile.ZipFile(io.BytesIO(world.model)) as source, zipfile.ZipFile(path, "w") as out:
            for one in source.infolist():
                raw = source.read(one)
                hit = one.filename.endswith("data.pkl") or rng.random() < 0.02
                out.writestr(one.filename, damaged(raw, rng) if hit else raw)
    checkpoint.open_model(path)


def read_checkpoint_values(world, rng, folder):
    """A whole checkpoint, rightly sealed, whose plain values are not what they should be."""
    saved = torch.load(io.BytesIO(world.model), weights_only=True)
    key = rng.choice(list(saved))
    if key in ("weights", "averaged") and rng.random() < 0.8:
        name = rng.choice(list(saved[key]))
        saved[key] = {
            **saved[key],
            name: rng.choice(
                (torch.zeros(1), torch.zeros(0), 3, None, torch.zeros(2, 2, dtype=torch.int64))
            ),
        }
    else:
        saved[key] = altered(saved[key] if not isinstance(saved[key], torch.Tensor) else {}, rng)
    if rng.random() < 0.1:
        del saved[key]
    torch.save({**saved, "checksums": checkpoint.checksums.digests(saved)}, folder / "x.pt")
    checkpoint.describe(checkpoint.open_model(folder / "x.pt")[2])


def read_photos(world, rng, folder):
    kind = rng.choice(("coco", "karpathy", "csv", "tsv", "texts"))
    if kind in ("coco", "karpathy"):
        path = put_json(folder / "captions_x.json", COCO if kind == "coco" else KARPATHY, rng)
    elif kind == "texts":
        for name in ("a.png", "b.jpg"):
            put(folder / name, b"")
        put(folder / "a.txt", damaged("a dog\ntwo cats\né\n".encode(), rng))
        path = folder
    else:
        path = put(folder / f"x.{kind}", damaged(CSV if kind == "csv" else TSV, rng))
    photos.read(str(path), folder)


def read_table(world, rng, folder):
    """A table with odd rows. If it is not damaged, every row must be a caption or counted."""
    made = tables.table(rng)
    path = folder / "x.csv"
    if rng.random() < 0.5:
        photos.read(str(put(path, damaged(made.text.encode(), rng))), folder)
        return
    found = Collected("x.csv", folder)
    photos.from_file(put(path, made.text.encode()), found)
    tables.check_no_loss(made, found)


SIDECARS = ("a dog\n", "two cats\n\none cat", "é 🐝\r\na\u2028b\r", "", " \n\t\n", "x\0y\n")
CODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-16-be")


def read_sidecars(world, rng, folder):
    """A folder of images with .txt files, some of other images, codings and suffixes. If no file is
    damaged, every line is a caption, or belongs to an image that is not there."""
    lines = {}
    for number in range(rng.randrange(1, 5)):
        below = folder / rng.choice((".", ".", "b", ".hidden", "É"))
        below.mkdir(exist_ok=True)
        image = put(below / f"{number}{rng.choice(('.jpg', '.PNG', '.gif', '.xyz'))}", b"")
        text = rng.choice(SIDECARS) + rng.choice(SIDECARS)
        coding = rng.choice(CODINGS)
        raw = text.encode(coding, "replace")
        harmed = rng.random() < 0.3 or not coding.startswith("utf-8")
        name = (
            f"{rng.choice((number, number, number, 9))}{rng.choice(('.txt', '.TXT', '.caption'))}"
        )
        put(below / name, damaged(raw, rng) if harmed and rng.random() < 0.5 else raw)
        belongs = Path(name).stem == image.stem and image.suffix != ".xyz"
        if belongs and below.name != ".hidden":
            lines[image.relative_to(folder).as_posix()] = None if harmed else text
    found = photos.read(str(folder), folder)
    for image, text in lines.items():
        if text is not None:
            wanted = [" ".join(line.split()) for line in text.splitlines()]
            wanted = [line for line in wanted if line]
            assert found.get(image, (None, []))[1] == wanted, (image, wanted, found)


def read_imagefolder(world, rng, folder):
    """A folder of images with metadata in the folders of its splits."""
    lines = [{"file_name": f"{n}.png", "text": "a dog", "split": "val"} for n in range(3)]
    for name in rng.sample(("train", "Validation", "x", "."), k=2):
        (folder / name).mkdir(exist_ok=True)
        rows = [altered(line, rng) if rng.random() < 0.3 else line for line in lines]
        text = "\n".join(json.dumps(row) for row in rows).encode()
        put(folder / name / "metadata.jsonl", damaged(text, rng) if rng.random() < 0.3 else text)
    path = photos.find_file(folder)
    identity.of_captions(path, folder)
    photos.read(str(path), folder)


def read_caption_files(world, rng, folder):
    lines = "\n".join(
        json.dumps(altered(line, rng) if rng.random() < 0.5 else line) for line in LINES
    ).encode()
    if rng.random() < 0.5:
        caption_results.read(
            [str(put(folder / "x.jsonl", damaged(lines, rng) if rng.random() < 0.5 else lines))],
            None,
        )
        return
    results = (
        put_json(folder / "r.json", RESULTS, rng)
        if rng.random() < 0.5
        else put(folder / "r.json", json.dumps(RESULTS).encode())
    )
    found = caption_results.read(
        [str(results)],
        str(put_json(folder / "c.json", rng.choice((COCO, KARPATHY)), rng)),
        rng.choice((None, "test")),
    )
    for image in found:
        caption_results.picture(image, folder)


def read_image(world, rng, folder):
    raw = damaged(rng.choice(world.pictures), rng)
    images.open_image(
        raw if rng.random() < 0.5 else put(folder / "x.png", raw), at_least=rng.choice((None, 8))
    )


def read_templates(world, rng, folder):
    text = "".join(rng.choice(WORDS) for _ in range(rng.randrange(9)))
    if rng.random() < 0.5:
        template_row(text, world.tokenizer, 48, open_end=rng.random() < 0.5)
    else:
        template = blanks.read_template(text, world.tokenizer)
        blanks.room(template, rng.choice(forms.FORMS), world.tokenizer, 48)


def read_bundle(world, rng, folder):
    target = folder / "bundle"
    shutil.copytree(world.root / "bundle", target)
    victim = rng.choice(("bundle.json", "bundle.json", "golden.npz", "tokenizer.json", "loop.onnx"))
    facts = files.read_sealed(target / "bundle.json", "", "")
    if victim == "bundle.json":
        put_json(target / victim, facts, rng, sealed=rng.random() < 0.8)
    else:
        put(target / victim, damaged((target / victim).read_bytes(), rng))
        if rng.random() < 0.5:
            bundle.seal(
                target,
                {name: value for name, value in facts.items() if name not in ("format", "files")},
            )
    Runner(target)
    bundle.golden(target)


def read_ratings(world, rng, folder):
    rows = ratings.read(
        [str(put_json(folder / f"{n}.json", RATINGS, rng)) for n in range(rng.choice((1, 1, 2)))]
    )
    if rng.random() < 0.03:  # resampling takes half a second
        ratings.table(ratings.summary(rows))


def read_text(world, rng, folder):
    list(
        sources.read_documents(
            put(folder / "x.txt", damaged("one é\n<|endoftext|>\ntwo 🐝".encode(), rng)),
            rng.choice(("<|endoftext|>", "\n", "é")),
        )
    )


def read_tokenizer(world, rng, folder):
    text = (world.root / "captions" / "tokenizer.json").read_text()
    value = (
        json.dumps(altered(json.loads(text), rng))
        if rng.random() < 0.7
        else damaged(text.encode(), rng).decode(errors="replace")
    )
    tokenizer = Tokenizer.from_json(value)
    tokenizer.decode(tokenizer.encode("a dog 🐝 \udcff"))


def read_encoder(world, rng, folder):
    if not (world.root / "encoder.safetensors").exists():
        settings = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
        preprocess = image_encoders.Preprocess(32, "squash", (0.5,) * 3, (0.5,) * 3)
        image_encoders.save_embedded(
            world.root / "encoder.safetensors", torch.nn.Linear(3, 4), settings, preprocess, "test"
        )
    image_encoders.read_weights(
        put(
            folder / "x.safetensors",
            damaged((world.root / "encoder.safetensors").read_bytes(), rng),
        )
    )


def read_encoder_folder(world, rng, folder):
    """A folder that transformers reads, with a file damaged, altered, exchanged or missing."""
    for kind in ("clip", "vit"):
        if not (world.root / f"encoder_{kind}").exists():
            save_encoder(world.root / f"encoder_{kind}", kind, num_hidden_layers=1)
    target = folder / "encoder"
    kind = rng.choice(("clip", "clip", "vit"))
    shutil.copytree(world.root / f"encoder_{kind}", target)
    victim = rng.choice(sorted(target.iterdir()))
    how = rng.randrange(8)
    if how == 0:
        victim.unlink()
    elif how == 1:
        put(victim, files.POINTER + b"/spec/v1\noid sha256:00\nsize 9\n")
    elif how == 2:
        put(target / "pytorch_model.bin", damaged(world.model, rng))
        (target / "model.safetensors").unlink()
    elif victim.suffix == ".json" and how < 7:
        value = json.loads(victim.read_text())
        for _ in range(rng.choice((1, 1, 2, 4))):
            key = rng.choice(sorted(value))
            value[key] = rng.choice((*ODD, 0, 2, 7, 32, {"height": 16, "width": 16}, [0.5] * 3))
        put(victim, json.dumps(value).encode())
    else:
        put(victim, damaged(victim.read_bytes(), rng))
    image_encoders.load(str(target))


def read_numbers(world, rng, folder):
    """Any .npy."""
    made = io.BytesIO()
    np.save(made, np.zeros(rng.randrange(5), dtype=rng.choice(("<u2", "<i8", "<f2", "|b1"))))
    raw = made.getvalue()
    if rng.random() < 0.3:
        raw = raw.replace(
            b"(", rng.choice((b"(9" * 9, b"((((", b"(10**99,", b"'(", b"(__import__('os')")), 1
        )
    np.asarray(folders.open_array(put(folder / "x.npy", damaged(raw, rng)), "again"))


READERS = {
    "settings": read_settings,
    "flags": read_flags,
    "text folder": lambda *a: arrays(*a, "data", "text"),
    "pairs folder": lambda *a: arrays(*a, "pairs", "pairs"),
    "captions folder": lambda *a: arrays(*a, "captions", "captions"),
    "checkpoint": read_checkpoint,
    "checkpoint's values": read_checkpoint_values,
    "captioned photographs": read_photos,
    "tables": read_table,
    "sidecars": read_sidecars,
    "imagefolder": read_imagefolder,
    "caption files": read_caption_files,
    "images": read_image,
    "templates": read_templates,
    "bundle": read_bundle,
    "ratings": read_ratings,
    "text": read_text,
    "tokenizer": read_tokenizer,
    "encoder": read_encoder,
    "encoder folder": read_encoder_folder,
    "npy": read_numbers,
}


def once(world: World, name: str, rng, folder: Path) -> bool:
    """One input for one reader: True if it was read, False if it was refused, by a UserError or by the system (of which files.run
    makes one). Anything else is raised."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        READERS[name](world, rng, folder)
        return True
    except (UserError, OSError):
        return False
