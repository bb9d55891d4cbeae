"""Strangers' files: no checkpoint runs code, no list leads out of its folder, no caption becomes HTML, any flipped byte is named."""

import importlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import prep_caption_photos
from base import files
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data as caption_data
from caption import photos, results
from loop import checkpoint
from show import pages, ratings
from tests.making import painted
from tests.making.captioned import by_hand, make_captioner, make_captions
from tests.making.paired import make_world
from tests.making.sources import COMMANDS, SOURCES

ROOT = Path(__file__).parent.parent.parent
CAPTION, NAME = (
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'<!-- & \"'.jpg",
)
FLAGS = re.compile(
    r"--(adapter|captioner|checkpoint|clip_captioner|codes|denoiser|dialogue|grounding|init_from"
    r"|judge|painter|reader|resume|tokenizer|twin)\b"
)


class Bomb:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def spoken(split: str) -> dict:
    """A line of captions.jsonl with a dialogue of a turn."""
    turn = {"question": "is it red ?", "answer": "yes", "family": "exist", "distance": 0}
    return {"image": "a.png", "split": split, "captions": ["a red star"], "turns": [turn]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Text, pairs and captions with a checkpoint each, and the hostile ones."""
    root = make_world(tmp_path_factory.mktemp("trust"))
    make_captions(root / "captions")
    make_captioner(root / "captions", root / "captioner")
    by_hand(root / "talks", [spoken("train"), spoken("val")])
    painted.make_pictures(root / "pictures")
    painted.make_reader(root / "reader.safetensors")
    painted.train(root / "pictures", root / "painter")
    (root / "hostile").mkdir()
    torch.save(
        {"format": 1, "kind": "text", "weights": Bomb(root / "ran")}, root / "hostile" / "zip.pt"
    )
    (root / "hostile" / "raw.pt").write_bytes(pickle.dumps(Bomb(root / "ran"), protocol=2))
    return root


def test_the_hostile_files_would_run(world, tmp_path):
    """Else the test below could not fail."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists() and b"touch" in (world / "hostile" / "raw.pt").read_bytes()


# Every flag by which a script reads a checkpoint. {bad}: the hostile one; run: a folder in which it is resume.pt.
CASES = {
    ("data_prep", "tokenizer"): "--input {w}/stories.txt --out {t}/x --tokenizer {bad}",
    ("train", "init_from"): "--data_dir {w}/data --out {t}/x --max_length 48 --init_from {bad}",
    ("train", "resume"): "--data_dir {w}/data --out {run} --resume",
    ("generate", "checkpoint"): "--checkpoint {bad}",
    ("evaluate", "checkpoint"): "--checkpoint {bad}",
    (
        "evaluate",
        "judge",
    ): "--checkpoint {w}/denoiser/best.pt --data_dir {w}/data --samples --num_samples 1 --min_tokens 8 --judge {bad}",
    (
        "evaluate",
        "twin",
    ): "--checkpoint {w}/captioner/best.pt --data_dir {w}/captions --step_counts 1 --splits val --twin {bad}",
    ("prep_conditional_data", "denoiser"): "--data_dir {w}/data --out {t}/x --denoiser {bad}",
    ("train_conditional", "denoiser"): "--data_dir {w}/pairs --out {t}/x --denoiser {bad}",
    ("train_conditional", "resume"): "--data_dir {w}/pairs --out {run} --resume",
    ("generate_conditional", "checkpoint"): "--checkpoint {bad} --prompt hello",
    ("train_captioning", "init_from"): "--data_dir {w}/captions --out {t}/x --init_from {bad}",
    ("train_captioning", "resume"): "--data_dir {w}/captions --out {run} --resume",
    (
        "generate_caption",
        "checkpoint",
    ): "--checkpoint {bad} --image {w}/captions/images/val/000000.png",
    ("train_dialogue", "init_from"): "--data_dir {w}/talks --out {t}/x --init_from {bad}",
    ("train_dialogue", "resume"): "--data_dir {w}/talks --out {run} --resume",
    ("chat", "checkpoint"): "--checkpoint {bad} --image {w}/captions/images/val/000000.png",
    ("train_image", "init_from"): "--data_dir {w}/pictures --out {t}/x --init_from {bad}",
    ("train_image", "resume"): "--data_dir {w}/pictures --out {run} --resume",
    ("generate_image", "checkpoint"): "--checkpoint {bad} --data_dir {w}/pictures --prompt star",
    (
        "generate_image",
        "reader",
    ): "--checkpoint {w}/painter/best.pt --data_dir {w}/pictures --prompt star --out {t}/x --reader {bad}",
    (
        "tools.paint_scores",
        "checkpoint",
    ): "--checkpoint {bad} --data_dir {w}/pictures --reader {w}/reader.safetensors",
    (
        "tools.paint_scores",
        "reader",
    ): "--checkpoint {w}/painter/best.pt --data_dir {w}/pictures --reader {bad}",
    (
        "tools.paint_scores",
        "twin",
    ): "--checkpoint {w}/painter/best.pt --data_dir {w}/pictures --reader {w}/reader.safetensors --twin {bad}",
    ("tools.train_encoder", "init_from"): "--data_dir {w}/captions --out {t}/x --init_from {bad}",
    ("tools.train_encoder", "resume"): "--data_dir {w}/captions --out {run} --resume",
    ("demo", "codes"): "--world --out {t}/x --codes {bad}",
    ("demo", "reader"): "--world --out {t}/x --codes {w}/pictures/codes.safetensors --reader {bad}",
    ("tools.world_page", "captioner"): "--captioner {bad} --captions_data {w}/captions",
    ("tools.world_page", "clip_captioner"): "--clip_captioner {bad} --clips_data {w}/captions",
    ("tools.world_page", "dialogue"): "--dialogue {bad} --dialogues_data {w}/talks",
    (
        "tools.world_page",
        "painter",
    ): "--painter {bad} --pictures_data {w}/pictures --reader {w}/reader.safetensors",
    (
        "tools.world_page",
        "reader",
    ): "--painter {w}/painter/best.pt --pictures_data {w}/pictures --reader {bad}",
    ("prep_image_tokens", "codes"): "--out {t}/x --codes {bad}",
    ("tools.train_picture_codes", "reader"): "--data_dir {t}/d --out {t}/x --reader {bad}",
    ("tools.train_picture_codes", "init_from"): "--data_dir {t}/d --out {t}/x --init_from {bad}",
    ("tools.train_picture_codes", "resume"): "--data_dir {t}/d --out {run} --resume",
    ("tools.train_picture_reader", "resume"): "--data_dir {t}/d --out {run} --resume",
    ("train_grounding", "resume"): "--data_dir {w}/robots --out {run} --resume",
    ("train_policy", "grounding"): "--data_dir {w}/robots --out {t}/x --grounding {bad}",
    ("train_policy", "resume"): "--data_dir {w}/robots --out {run} --resume",
    ("run_policy", "checkpoint"): "--checkpoint {bad}",
    ("tools.shortcuts", "checkpoint"): "--checkpoint {bad} --data_dir {w}/data",
    (
        "tools.shortcuts",
        "judge",
    ): "--checkpoint {w}/denoiser/best.pt --data_dir {w}/data --texts 1 --min_tokens 8 --judge {bad}",
    ("tools.block_line", "checkpoint"): "--checkpoint {bad} --data_dir {w}/data",
    (
        "tools.block_line",
        "denoiser",
    ): "--checkpoint {w}/denoiser/best.pt --data_dir {w}/data --denoiser {bad}",
    (
        "tools.block_line",
        "twin",
    ): "--checkpoint {w}/denoiser/best.pt --data_dir {w}/data --twin {bad}",
    (
        "tools.block_line",
        "judge",
    ): "--checkpoint {w}/denoiser/best.pt --data_dir {w}/data --judge {bad}",
    ("drive_robot", "checkpoint"): "--checkpoint {bad} --virtual",
    ("serve_policy", "checkpoint"): "--checkpoint {bad} --port 0",
    ("tools.arm_clip", "checkpoint"): "--checkpoint {bad}",
    ("export_onnx", "checkpoint"): "--checkpoint {bad} --out {t}/x",
    (
        "export_onnx",
        "adapter",
    ): "--checkpoint {w}/denoiser/best.pt --out {t}/x --adapter {bad}",
    ("generate", "adapter"): "--checkpoint {w}/denoiser/best.pt --adapter {bad}",
    ("evaluate", "adapter"): "--checkpoint {w}/denoiser/best.pt --adapter {bad}",
    (
        "generate_caption",
        "adapter",
    ): "--checkpoint {w}/captioner/best.pt --image {w}/captions/images/val/000000.png "
    "--adapter {bad}",
    ("tools.practise", "checkpoint"): "--checkpoint {bad} --out {t}/x",
    ("tools.publish", "checkpoint"): "--checkpoint {bad} --out {t}/x",
    ("tools.benchmark", "checkpoint"): "--checkpoint {bad} --repeats 1",
    ("visualize_architecture", "checkpoint"): "--checkpoint {bad} --out {t}/x",
    ("prep_caption_synthetic", "tokenizer"): "--out {t}/x --encoder none --tokenizer {bad}",
    (
        "prep_caption_photos",
        "tokenizer",
        # No other case writes into this folder, so the order of the cases does not matter.
    ): "--captions {w}/captions/images/val --out {t}/x --encoder none --tokenizer {bad}",
}


NAMES = {("infer_onnx", "adapter")}  # a name inside a bundle, no file


def test_no_script_that_reads_a_checkpoint_is_forgotten(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            importlib.import_module(name).main(["--help"])
        listed = capsys.readouterr().out.split("\noptions:")[1]
        said = {
            flag
            for flag in FLAGS.findall(
                "\n".join(line for line in listed.splitlines() if line.startswith("  --"))
            )
        }
        known = CASES.keys() | NAMES
        assert said == {flag for script, flag in known if script == name}, name


@pytest.mark.parametrize("kind", ["zip", "raw"])
@pytest.mark.parametrize("script, flag", CASES)
def test_a_hostile_checkpoint_is_refused(world, tmp_path, script, flag, kind):
    bad = world / "hostile" / f"{kind}.pt"
    (tmp_path / "run").mkdir()
    shutil.copy(bad, tmp_path / "run" / "resume.pt")
    words = CASES[script, flag].format(w=world, t=tmp_path, bad=bad, run=tmp_path / "run").split()
    with pytest.raises(UserError, match="more than tensors|damaged|no tokenizer"):
        importlib.import_module(script).main(words)
    assert not (world / "ran").exists()


def test_a_hostile_newest_checkpoint_is_named_and_passed_over(world, tmp_path, monkeypatch, capsys):
    for number, source in enumerate((world / "denoiser" / "best.pt", world / "hostile" / "zip.pt")):
        (tmp_path / "runs" / str(number)).mkdir(parents=True)
        shutil.copy(source, tmp_path / "runs" / str(number) / "best.pt")
        os.utime(tmp_path / "runs" / str(number) / "best.pt", (number, number))
    monkeypatch.chdir(tmp_path)
    assert (
        checkpoint.newest() == Path("runs/0/best.pt")
        and "skipped: found runs/1/best.pt, which holds more" in capsys.readouterr().err
    )
    assert not (world / "ran").exists()


def test_no_source_unpickles():
    """weights_only for every torch.load, allow_pickle=False for every np.load, and no other way to run what a file says."""
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert text.count("torch.load(") == text.count("weights_only=True)"), path
        written = text.count("format.write_array(")
        assert text.count("np.load(") == text.count("allow_pickle=False)") - written, path
        assert not re.search(
            r"trust_remote_code(?!=False)|pickle\.loads?\(|np\.fromstring|\beval\(\"|exec\(|yaml\.load|shell=True|joblib|dill",
            text,
        ), path


def test_a_compressed_checkpoint_is_refused(world, tmp_path):
    """Two hundred kB that would unpack to as many MB."""
    good = world / "denoiser" / "best.pt"
    with (
        zipfile.ZipFile(good) as source,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for one in source.infolist():
            out.writestr(
                one.filename,
                bytes(200 << 20) if one.filename.endswith("/data/0") else source.read(one),
            )
    assert (tmp_path / "bomb.pt").stat().st_size < 1 << 20
    with pytest.raises(UserError, match="bomb.pt with compressed records"):
        checkpoint.load(tmp_path / "bomb.pt")


def test_a_small_file_cannot_ask_for_all_memory(world, tmp_path):
    saved = torch.load(world / "denoiser" / "best.pt", weights_only=True)
    for name in ("d_model", "layers", "max_length"):
        checkpoint.save(tmp_path / "bad.pt", {**saved, "model": {**saved["model"], name: 1 << 40}})
        with pytest.raises(UserError, match="do not fit its own description"):
            checkpoint.open_model(tmp_path / "bad.pt")


def test_a_changed_tensor_or_value_is_named_and_old_checkpoints_load(world, tmp_path):
    saved = torch.load(world / "denoiser" / "best.pt", weights_only=True)
    name = next(iter(saved["weights"]))
    saved["weights"][name].view(-1)[3] += 1e-6
    torch.save(saved, tmp_path / "changed.pt")
    with pytest.raises(UserError, match=re.escape(f"were changed (weights/{name})")):
        checkpoint.load(tmp_path / "changed.pt")
    saved["weights"][name].view(-1)[3] -= 1e-6
    torch.save({**saved, "step": saved["step"] + 1}, tmp_path / "changed.pt")
    with pytest.raises(UserError, match=re.escape("(step (plain values))")):
        checkpoint.load(tmp_path / "changed.pt")
    del saved["checksums"]
    torch.save(saved, tmp_path / "old.pt")
    assert checkpoint.load(tmp_path / "old.pt")["step"] == saved["step"]
    raw = bytearray((tmp_path / "old.pt").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "old.pt").write_bytes(raw)
    with pytest.raises(UserError, match="old.pt, which is damaged"):
        checkpoint.load(tmp_path / "old.pt")


def test_no_list_of_files_leads_out_of_its_folder(tmp_path):
    """Names with .. are refused everywhere, absolute ones in JSON that others wrote; a CSV of one's own may have them."""
    (tmp_path / "set").mkdir()
    for name in ("secret.png", "set/a.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    absolute = str(tmp_path / "secret.png")
    coco = lambda name: json.dumps(
        {
            "images": [{"id": 1, "file_name": name}],
            "annotations": [{"image_id": 1, "caption": "a dog"}],
        }
    )
    karpathy = lambda name: json.dumps(
        {"images": [{"filename": name, "split": "train", "sentences": [{"raw": "a dog"}]}]}
    )
    for file, content in (
        ("captions_x.json", coco("../secret.png")),
        ("captions_x.json", coco(absolute)),
        ("dataset_x.json", karpathy("../secret.png")),
        ("dataset_x.json", karpathy(absolute)),
        ("x.csv", "../secret.png,a dog\n"),
        ("x.csv", "b/../../secret.png,a dog\n"),
    ):
        (tmp_path / "set" / file).write_text(content)
        with pytest.raises(UserError, match="which leads out of"):
            photos.read(str(tmp_path / "set" / file), tmp_path / "set")
    (tmp_path / "set" / "x.csv").write_text(f"{absolute},a dog\n")
    assert list(photos.read(str(tmp_path / "set" / "x.csv"), tmp_path / "set")) == [absolute]
    with pytest.raises(UserError, match="which leads out of"):
        caption_data.image_path(tmp_path / "set", {"image": "../secret.png"})
    with pytest.raises(UserError, match="no .*set/secret.png"):
        results.picture(results.Image("1", "../secret.png", [], []), tmp_path / "set")
    with pytest.raises(UserError, match="which leads out of"):
        files.check_files(
            tmp_path / "set", {"../secret.png": {"bytes": 1, "sha256": ""}}, "copy it again"
        )


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text += data


PICTURE = "data:image/jpeg;base64,AAAA"


def every_page() -> dict[str, str]:
    """Each kind of page, with a hostile caption, file name, reference, model name and fact; and the same with harmless ones."""

    def made(caption, name):
        # The whole caption is one token: a page of the same shape for every caption.
        tokenizer = SimpleNamespace(bos=0, eos=1, pad=2, piece=lambda id: caption)
        sample = SimpleNamespace(ids=[3], step=[1], probability=[0.5])
        item = {
            "image": PICTURE,
            "name": name,
            "caption": caption,
            "pieces": [caption],
            "step": [1],
            "probability": [0.5],
            "references": [caption],
            "others": [[name, caption]],
            "group": name,
            "verdict": {"truthful": False, "exact": False, "notes": [caption]},
        }
        rated = [
            {"image": PICTURE, "name": name, "captions": [{"text": caption, "sources": [name]}]}
        ]
        return {
            "gallery": pages.gallery(
                [item], {name: caption}, [["", caption], [name, "1"]], title=caption
            ),
            "ratings": ratings.page(rated, title=caption),
            "unmasking": pages.unmasking([sample], tokenizer, {name: caption}),
        }

    return {
        f"{kind} {page}": text
        for kind, texts in (("hostile", made(CAPTION, NAME)), ("plain", made("plain", "plain")))
        for page, text in texts.items()
    }


def test_a_caption_is_text_on_every_page():
    made = every_page()
    for page in ("gallery", "ratings", "unmasking"):
        hostile, plain = Tags(made[f"hostile {page}"]), Tags(made[f"plain {page}"])
        assert hostile.tags == plain.tags and hostile.attributes == plain.attributes, page
        assert "default-src 'none'" in made[f"hostile {page}"]
    assert (
        CAPTION in Tags(made["hostile gallery"]).text and NAME in Tags(made["hostile gallery"]).text
    )


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here")
@pytest.mark.parametrize("page", ["gallery", "ratings", "unmasking"])
def test_a_browser_shows_it_as_text(page, tmp_path):
    """After the page's own script has run: the title is untouched, no element was made of the caption, and it can be read."""
    (tmp_path / "page.html").write_text(every_page()[f"hostile {page}"])
    done = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=3000",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    shown = Tags(done.stdout)
    assert "<title>owned" not in done.stdout and "onerror" not in shown.attributes, done.stderr[
        -500:
    ]
    assert "onerror" in shown.text and (page != "gallery" or CAPTION in shown.text)


def test_any_unicode(tmp_path, capsys):
    """A caption with half a surrogate pair, and a picture whose name is no UTF-8, from the folder to the features' list and back."""
    tokenizer = Tokenizer.train(["a red circle"] * 3, 300)
    assert (
        tokenizer.decode(tokenizer.encode("a\udcffb"))
        == "a\ufffdb"
        == tokenizer.decode(tokenizer.encode_batch(["a\udcffb"])[0])
    )
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x90\x9d.png")
    folder = by_hand(
        tmp_path / "data",
        [
            {
                "image": name,
                "split": "train",
                "captions": ["half \ud800 a pair", "\u202ertl \x1b[31m"],
            }
        ],
    )
    data = caption_data.CaptionData(folder, "train")
    assert (
        data.records[0]["image"] == name
        and data.records[0]["captions"][0] == "half \ud800 a pair"
        and len(data.tokens[0]) == 2
    )
    pages.gallery(
        [
            {
                "image": PICTURE,
                "name": name,
                "caption": "x\udc80",
                "pieces": ["x"],
                "step": [1],
                "probability": [1.0],
            }
        ],
        {},
    )
    files.write_text(tmp_path / "page.html", name)
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / f"{number}{name}")
        (tmp_path / "pictures" / f"{number}{name}").with_suffix(".txt").write_text(
            f"caption \u2028 {number}"
        )
    prep_caption_photos.main(
        [
            "--captions",
            str(tmp_path / "pictures"),
            "--out",
            str(tmp_path / "out"),
            "--encoder",
            "none",
            "--workers",
            "1",
            "--num_val",
            "1",
        ]
    )
    assert all(
        caption_data.image_path(tmp_path / "out", record).exists()
        for record in caption_data.read_records(tmp_path / "out")
    )
    code = "from base import files; files.run(lambda: print('na\\udcffme'))"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).stdout
        == b"na\\udcffme\n"
    )


def test_object_arrays_are_never_unpickled(world, tmp_path):
    copy = shutil.copytree(world / "data", tmp_path / "data")
    meta = files.read_sealed(copy / "meta.json", "", "")
    np.save(copy / "train.npy", np.array([Bomb(world / "ran")], dtype=object), allow_pickle=True)
    meta["files"] = files.listed(copy, meta["files"])
    files.write_sealed(copy / "meta.json", meta)
    from text.data import TextData

    with pytest.raises(UserError, match="train.npy, which is damaged"):
        TextData(copy, "train", 48)
    assert not (world / "ran").exists()
