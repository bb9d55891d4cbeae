"""One page of tiny models: all sections, known marks, missing checkpoints, what is refused."""

import pytest

import prep_caption_video
from base.files import UserError
from caption.data import read_records
from caption.writer import Caption
from tests.making.captioned import make_captioner
from tests.show.test_pages import NASTY, Reader
from tools import world_page

HERE = ["--device", "cpu", "--threads", "1", "--scored", "3", "--shown", "2", "--steps", "2"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of clips, and a captioner of clips that is a few steps old."""
    data = tmp_path_factory.mktemp("clips") / "data"
    sizes = ["--num_train", "10", "--num_val", "2", "--vocab_size", "320", "--workers", "1"]
    prep_caption_video.main(["--out", str(data), *sizes, "--keep", "0"])
    return data, make_captioner(data, data.parent / "run") / "best.pt"


def written(tmp_path, *flags) -> Reader:
    """The page as it is written with these flags."""
    out = tmp_path / "page.html"
    world_page.main([*map(str, flags), "--out", str(out), *HERE])
    return Reader(out.read_text(encoding="utf-8"))


def test_a_page_of_all_models(
    tmp_path, scene_folder, captioner, painted, clips, dialogue_folder, answerer, capsys
):
    page = written(
        tmp_path,
        *("--captioner", captioner, "--captions_data", scene_folder),
        *("--painter", painted.painter, "--pictures_data", painted.data),
        *("--reader", painted.reader, "--clip_captioner", clips[1], "--clips_data", clips[0]),
        *("--dialogue", answerer, "--dialogues_data", dialogue_folder),
    )
    sections = [attributes["id"] for _, attributes, _ in page.all("section")]
    assert sections == ["captions", "drawings", "edits", "clips", "dialogues"]
    assert len(page.all("article")) == 2 * 5 and len(page.all("div", "film")) == 2
    assert len(page.all("pre")) == 5 and "train_dialogue.py" in page.all("pre")[4][2]
    printed = capsys.readouterr().out
    # 3 of the dialogues, of ten questions each.
    assert "dialogues: " in printed and "of 30 answers in 3 dialogues are true" in printed
    assert "claims in 2 captions are true" in printed  # the split has two clips
    says = " ".join(text for _, _, text in page.all("p", "says"))
    assert "Of the true pictures it finds" in says and str(captioner) in says


def test_known_marks(tmp_path, scene_folder, captioner, monkeypatch):
    """A true caption, a false caption, and a hostile caption, whatever the model wrote."""
    records = [it for it in read_records(scene_folder) if it["split"] == "val"]
    thing = records[1]["scene"]["objects"][0]
    false = f"there is no {thing['colour']} {thing['shape']}"
    texts = [records[0]["captions"][0], false, NASTY]

    def write(model, tokenizer, objective, features, settings, seed, first):
        assert len(features) == 3 and first == 0
        return [Caption([3], [1], [0.5], 1, text) for text in texts]

    monkeypatch.setattr(world_page.writer, "write", write)
    flags = ["--captioner", captioner, "--captions_data", scene_folder]
    out = tmp_path / "page.html"
    world_page.main([*map(str, [*flags, "--out", out]), *HERE, "--shown", "3"])
    page = Reader(out.read_text(encoding="utf-8"))
    heads = [text for _, _, text in page.all("div", "head")]
    assert [text.split()[-1] for text in heads] == ["true", "false", "false"]
    labels = [attributes["aria-label"] for _, attributes, _ in page.all("article")]
    assert NASTY in labels[2]  # an attribute, not markup


def test_shares_are_of_all_claims():
    items = [{"kind": "captions", "marks": [("a", True)] * 3}]
    items += [{"kind": "captions", "marks": [("a", False)]}]
    figure = world_page.share(items)
    assert figure["questions"] == 4 and figure["accuracy"] == 0.75
    low, high = figure["accuracy_ci95"]
    assert low <= 0.75 <= high


def test_a_section_without_a_checkpoint_names_its_command(tmp_path, scene_folder, captioner):
    flags = ["--captioner", captioner, "--captions_data", scene_folder]
    page = written(tmp_path, *flags, "--dialogue", tmp_path / "best.pt")
    shares = [text.strip() for _, _, text in page.all("p", "share")]
    assert shares[1:] == ["no checkpoint."] * 3 + [f"no file {tmp_path / 'best.pt'}."]
    says = [text for _, _, text in page.all("p", "says")]
    command = (
        "train_image.py --init_from checkpoints_image_ar/best.pt --logit_shift --block_sizes 1,12"
    )
    assert f"{command} --minutes 120 makes the checkpoint for --painter." in says[1]


def test_what_is_refused(tmp_path, scene_folder, captioner, painted, clips):
    with pytest.raises(UserError, match="found no checkpoint; expected a file for at least one"):
        written(tmp_path)
    with pytest.raises(UserError, match="no file .*no.pt"):
        written(tmp_path, "--painter", tmp_path / "no.pt")
    with pytest.raises(UserError, match="--split train"):
        written(tmp_path, "--captioner", captioner, "--split", "train")
    with pytest.raises(UserError, match="without drawn clips|features of"):
        written(tmp_path, "--clip_captioner", captioner, "--clips_data", scene_folder)
    with pytest.raises(UserError, match="picture reader"):
        paint = ["--painter", painted.painter, "--pictures_data", painted.data]
        written(tmp_path, *paint, "--reader", tmp_path / "none")
    assert not (tmp_path / "page.html").exists()


def test_a_twin_paints_but_cannot_edit(tmp_path, painted):
    flags = ["--painter", painted.twin, "--pictures_data", painted.data]
    page = written(tmp_path, *flags, "--reader", painted.reader)
    assert len(page.all("article")) == 2
    assert "is a twin" in " ".join(text for _, _, text in page.all("p", "says"))
