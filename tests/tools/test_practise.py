"""Practice as users run it: kept pictures, a stopped run that continues, refusals, a training."""

import pytest
import torch

from base.files import UserError
from image import practice, studio
from image.data import PictureData
from image.practice import Tally
from image.rows import PairBatches, Pairs
from loop import checkpoint
from tests.making.painted import make_pictures, train
from tools import practise


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    root = tmp_path_factory.mktemp("practising")
    data = make_pictures(root / "data", planned=2)
    return train(data.folder, root / "run", "--share_words", "0.5"), data


@pytest.fixture
def words(painter, tmp_path, monkeypatch):
    """The flags of a small run that keeps some pictures, saved after two batches."""
    monkeypatch.setattr(practise, "SAVED", 2)
    run, data = painter
    where = ["--checkpoint", str(run), "--data_dir", str(data.folder), "--device", "cpu"]
    size = "--pictures 12 --batch_size 4 --steps 3 --least 0.00195 --threads 1 --precision fp32"
    return [*where, *size.split(), "--out", str(tmp_path / "out")]


def test_what_was_kept(words, painter, tmp_path, capsys):
    """A folder of picture tokens with the words of the first; a second run is refused."""
    practise.main(words)
    said = capsys.readouterr()
    found = PictureData(tmp_path / "out")
    count = found.splits["train"]
    assert f"kept {count} of 12 pictures" in said.out and found.splits == {"train": count}
    assert found.tokenizer.fingerprint == painter[1].tokenizer.fingerprint
    pairs = Pairs(found, "train")
    assert len(pairs) == count and pairs.pictures.shape == (count, 9)
    meta = found.meta["practice"]
    assert (meta["pictures"], meta["steps"], meta["guidance"]) == (12, 3, 1.0)
    assert meta["precision"] == "torch.float32"
    assert not (tmp_path / "out" / practise.UNFINISHED).exists()
    with pytest.raises(UserError, match="which is there"):
        practise.main(words)


def test_a_stopped_run_continues(words, tmp_path, monkeypatch):
    """It paints again what was painted after the last saved state, and ends with equal files."""
    practise.main(words)
    straight = PictureData(tmp_path / "out")
    second = [*words[:-1], str(tmp_path / "second")]
    real, calls, tallies = practice.practise, [], []
    count = Tally.probability

    def dying(*arguments):
        calls.append(arguments[4])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    def watched(tally, scene):
        tallies.append((dict(tally.painted), dict(tally.dropped)))
        return count(tally, scene)

    monkeypatch.setattr(practice, "practise", dying)
    monkeypatch.setattr(Tally, "probability", watched)
    with pytest.raises(KeyboardInterrupt):
        practise.main(second)
    before = tallies[-1]
    with pytest.raises(UserError, match="practice with other settings"):
        practise.main([*second, "--steps", "4"])
    with pytest.raises(UserError, match="practice with other settings"):
        practise.main([*second, "--precision", "bf16"])
    tallies.clear()
    practise.main(second)
    assert calls == [0, 4, 8, 8] and tallies[0] == before and sum(before[0].values()) >= 8
    again = PictureData(tmp_path / "second")
    assert again.meta["fingerprint"] == straight.meta["fingerprint"]


def test_a_damaged_state_is_refused(words, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / practise.UNFINISHED).write_text('{"done": 4, "checksum": "0"}')
    with pytest.raises(UserError, match="unfinished"):
        practise.main(words)


def test_another_network_reads_the_pictures(words, painter, tmp_path, monkeypatch):
    """The pictures are the painter's, and the checker says which are kept."""
    practise.main([*words, "--least", "0.000001"])
    run, data = painter
    other = train(data.folder, tmp_path / "other", "--share_words", "0.6", "--seed", "7")
    read = []
    real = practice.candidates.least_sure

    def watched(model, *arguments):
        read.append(model)
        return real(model, *arguments)

    monkeypatch.setattr(practice.candidates, "least_sure", watched)
    second = [*words[:-1], str(tmp_path / "second"), "--checker", str(other)]
    practise.main([*second, "--least", "0.000001"])
    folders = [PictureData(tmp_path / name) for name in ("out", "second")]
    assert (folders[0].tokens("train") == folders[1].tokens("train")).all()
    facts = [folder.meta["practice"] for folder in folders]
    assert facts[0]["checker"] == facts[0]["painter"] == facts[1]["painter"]
    assert facts[1]["checker"] != facts[1]["painter"]
    expected = studio.open_studio(str(other), str(data.folder), "cpu").model.state_dict()
    for model in read:
        found = model.state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_refusals(words, tmp_path):
    with pytest.raises(UserError, match="no picture of 12"):
        practise.main([*words, "--least", "0.999"])
    with pytest.raises(UserError, match="--sharpen"):
        practise.main([*words[:-1], str(tmp_path / "b"), "--sharpen", "2"])
    with pytest.raises(UserError, match="--block_size 3"):
        practise.main([*words[:-1], str(tmp_path / "c"), "--block_size", "3"])


def test_a_training_with_practice(words, painter, tmp_path):
    """Other weights than without; a resumed run has the same practice, or is refused."""
    practise.main(words)
    own = ["--practice", str(tmp_path / "out"), "--share_practice", "1"]
    start = ["--init_from", str(painter[0])]
    run = train(painter[1].folder, tmp_path / "run", *start, *own)
    plain = train(painter[1].folder, tmp_path / "plain", *start)
    weights = [checkpoint.load(path)["weights"] for path in (run, plain)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    saved = checkpoint.load(run)
    assert saved["statistics"]["practice"] == PictureData(tmp_path / "out").fingerprint
    again = ["--resume", "--max_steps", "5"]
    train(painter[1].folder, tmp_path / "run", *again, *own[:2])
    with pytest.raises(UserError, match="found no --practice; expected the practice of the run"):
        train(painter[1].folder, tmp_path / "run", *again)
    with pytest.raises(UserError, match="expected no practice, as in the run"):
        train(painter[1].folder, tmp_path / "plain", *again, *own[:2])


def test_a_training_with_two_rounds(words, painter, tmp_path, monkeypatch):
    """The pictures of both folders teach, and the checkpoint names both."""
    practise.main(words)
    practise.main([*words[:-1], str(tmp_path / "second"), "--seed", "1"])
    folders = [PictureData(tmp_path / name) for name in ("out", "second")]
    taught = []
    real = PairBatches.__init__

    def watched(self, *arguments):
        taught.append(arguments[-2])
        real(self, *arguments)

    monkeypatch.setattr(PairBatches, "__init__", watched)
    both = ["--practice", f"{tmp_path / 'out'},{tmp_path / 'second'}"]
    run = train(painter[1].folder, tmp_path / "run", "--init_from", str(painter[0]), *both)
    expected = [Pairs(folder, "train").pictures for folder in folders]
    assert torch.equal(taught[0].pictures, torch.cat(expected))
    prints = ",".join(folder.fingerprint for folder in folders)
    assert checkpoint.load(run)["statistics"]["practice"] == prints
