"""Pairs keep the split of their text, whichever way the text comes; every refusal has its reason."""

import prep_conditional_data
from tests.making.corpus import make_data, make_run, write_corpus
from tests.making.paired import refusal
from text.pairs import PairData


def prepare(*words) -> None:
    prep_conditional_data.main([str(word) for word in words])


def test_pairs_keep_the_split_of_the_text(conditional_world, tmp_path, capsys):
    """From the tokens of a data folder and from the text itself, with the same seed and share."""
    denoiser = ("--denoiser", conditional_world / "denoiser" / "best.pt")
    made = conditional_world / "pairs"
    prepare(*denoiser, "--data_dir", conditional_world / "data", "--out", made)
    assert "already done" in capsys.readouterr().out
    again = tmp_path / "pairs"
    corpus = write_corpus(tmp_path / "stories.txt")
    text = [*denoiser, "--input", corpus, "--val_fraction", 0.15, "--out", again]
    prepare(*text)
    for split in ("train", "val"):
        tokens = PairData(made, split, "context").tokens
        assert PairData(again, split, "context").tokens.tolist() == tokens.tolist()
    refusal(prep_conditional_data.main, [*text, "--blanks", "3"], "other settings")
    prepare(*text, "--blanks", 0, "--force")
    assert PairData(again, "val", "ar").meta["splits"]["val"]["pairs"]["blanks"] == 0


def test_refusals(conditional_world, tmp_path):
    data = conditional_world / "data"
    other_data = make_data(tmp_path / "data", vocab_size=290, val_fraction=0.15)
    other = make_run(other_data, tmp_path / "other", "--max_length", "96") / "best.pt"
    short = make_run(data, tmp_path / "short", "--max_length", "40") / "best.pt"
    start = ["--denoiser", conditional_world / "denoiser" / "best.pt", "--data_dir", data]
    for words, message in (
        (("--denoiser", other), "tokenizer"),
        (("--denoiser", tmp_path / "no.pt"), "no.pt"),
        (("--input", tmp_path / "no*.txt"), "no file"),
        (("--val_fraction", "1"), "--val_fraction 1"),
        (("--denoiser", short, "--max_documents", "1"), "none with a pair"),
    ):
        refusal(prep_conditional_data.main, [*start, "--out", tmp_path / "p", *words], message)
        assert not list((tmp_path / "p").glob(".*raw"))  # nothing half-written stays
