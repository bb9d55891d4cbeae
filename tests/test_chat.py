"""Asking about an image as a user does: lines, flags, a page; what is refused or noted."""

import io

import pytest

import chat
from base.files import UserError
from tests.show.test_pages import Reader


@pytest.fixture
def picture(dialogue_folder):
    return str(dialogue_folder / "images" / "val" / "000000.png")


def answers(capsys, *words):
    chat.main([*words, "--device", "cpu", "--threads", "1"])
    return capsys.readouterr().out.splitlines()


def test_typed_questions_are_answered_as_given_questions(
    answerer, answerer_twin, picture, monkeypatch, capsys
):
    for path in (answerer, answerer_twin):
        common = ["--checkpoint", str(path), "--image", picture]
        asked = ["is there a star ?", "what colour is it ?"]
        given = answers(capsys, *common, "--question", asked[0], "--question", asked[1])
        assert given == answers(capsys, *common, "--question", *asked)
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(asked)))
        typed = answers(capsys, *common)
        assert [f"{question} {text}" for question, text in zip(asked, typed, strict=True)] == given


def test_empty_lines_and_other_questions(answerer, picture, monkeypatch, capsys):
    """One line of advice; an answer and a note with two examples; a mistake loses nothing."""
    lines = "\nwhy is the sky blue\n" + "is it red ? " * 90 + "\nis there a star ?\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    out = answers(capsys, "--checkpoint", str(answerer), "--image", picture)
    assert len(out) == 5 and out[0].startswith("type a question, such as: ")
    assert out[2] == "  note: " + chat.OUTSIDE and all(it in out[2] for it in chat.EXAMPLES)
    assert out[3].startswith("error: found a question of") and not out[4].startswith("error")
    assert not any(chat.note_of(example) for example in chat.EXAMPLES)


def test_the_page_shows_the_dialogue(answerer, picture, tmp_path, capsys):
    page = tmp_path / "pages" / "chat.html"
    words = ["--checkpoint", str(answerer), "--image", picture, "--html", str(page)]
    asked = ["is there a star ?", "who <b>are</b> you"]
    chat.main([*words, "--device", "cpu", "--threads", "1", "--question", *asked])
    printed = capsys.readouterr()
    out = printed.out.splitlines()
    read = Reader(page.read_text(encoding="utf-8"))
    questions = [text for _, _, text in read.all("p", "question")]
    said = [text for _, _, text in read.all("p", "answer")]
    assert questions == ["is there a star ?", "who <b>are</b> you"]
    assert [f"{q} {a}" for q, a in zip(questions, said, strict=True)] == [out[0], out[1]]
    assert [text for _, _, text in read.all("p", "note")] == [chat.OUTSIDE]
    # What the model noted first stands below the picture, and was said in the terminal.
    noted = [text for _, _, text in read.all("li", "thing")]
    assert "it sees: " + (", ".join(noted) or "nothing") in printed.err.splitlines()


def test_forgotten_questions_are_said(answerer, picture, capsys):
    """Once the rows of the model are full."""
    asked = ["is there a star ?"] * 30
    out = answers(capsys, "--checkpoint", str(answerer), "--image", picture, "--question", *asked)
    notes = [line for line in out if line.startswith("  note: the first ")]
    assert len(out) == 30 + len(notes) and notes
    counts = [int(line.split()[3]) for line in notes]
    assert counts == list(range(1, len(notes) + 1))


def test_refusals(answerer, captioner, picture, tmp_path):
    for words, message in (
        (["--checkpoint", str(answerer)], "no image"),
        (["--image", str(tmp_path / "no.png")], "no.png"),
        (["--image", picture, "--question", " "], "an empty --question"),
        (["--image", picture, "--checkpoint", str(captioner)], "of kind 'caption'"),
    ):
        with pytest.raises(UserError, match=message):
            chat.main([*words, "--device", "cpu"])
