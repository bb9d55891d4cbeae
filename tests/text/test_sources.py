"""Sentences: a hand-checked list, and nothing lost between them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.files import UserError
from text import sources

PARAGRAPHS = [
    paragraph.split("\n")
    for paragraph in (Path(__file__).parent / "sentences.txt")
    .read_text(encoding="utf-8")
    .strip()
    .split("\n\n")
]


def test_the_hand_checked_list():
    """200 sentences in paragraphs, joined by spaces and cut again: at least 98% come out as they were."""
    right = total = 0
    for paragraph in PARAGRAPHS:
        wanted = [line.strip() for line in paragraph]
        found = sources.sentences(" ".join(wanted))
        right, total = right + sum(one in found for one in wanted), total + len(wanted)
    print(f"{right} of {total} sentences ({100 * right / total:.1f}%)")
    assert total == 200 and right / total >= 0.98


def test_folders_of_texts(tmp_path, capsys):
    """Texts behind a link and in capital letters are read; other files are counted."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").mkdir()
    for name in ("elsewhere/1.txt", "folder/2.TXT", "folder/3.txt", "folder/4.jsonl"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder" / "linked").symlink_to(tmp_path / "elsewhere")
    found = sources.find_files(str(tmp_path / "folder"))
    assert [path.name for path in found] == ["2.TXT", "3.txt", "1.txt"]
    assert "3 files taken, 1 left out: 1 .jsonl (the first: " in capsys.readouterr().err
    (tmp_path / "folder" / "loop").symlink_to(tmp_path / "folder")
    found = sources.find_files(str(tmp_path / "folder" / "**" / "*.txt"))
    assert [path.name for path in found] == ["3.txt", "1.txt"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.md").write_text("a")
    with pytest.raises(UserError, match=r"no file for --input .* \(1 left out: 1 .md \(the first"):
        sources.find_files(str(tmp_path / "none"))


def test_what_the_issue_asks():
    assert sources.sentences('Mr. Fox said, "Go!" and ran. Then Dr. Hen sat down.') == [
        'Mr. Fox said, "Go!" and ran.',
        "Then Dr. Hen sat down.",
    ]
    assert sources.sentences(
        '"No!" Tim shouted.\n"It is mine." Sue ran.\n\nA title\n\nThe end'
    ) == [
        '"No!" Tim shouted.',
        '"It is mine."',
        "Sue ran.",
        "A title",
        "The end",
    ]
    assert sources.sentences("") == [] and sources.sentences(" \n ") == []


@pytest.mark.parametrize(
    "sentences",
    [
        ["从前有一只猫叫汤姆。", "它有一个红色的球。", "他们很高兴！", "真的吗？"],
        ["他说：“走吧！快点。”", "然后他跑了。", "“好！”汤姆说。", "天黑了。"],
        ["「行こう。」と言った。", "猫は走った！", "犬も走った。"],
        ["太好了！！", "好吗？！", "没有句号"],
        ["Tom 说 3.5 元。", "OK。", "A dog。"],
    ],
)
def test_chinese_and_japanese_sentences(sentences):
    """No space stands between them; a quotation stays whole, and with its speaker's tag."""
    assert sources.sentences("".join(sentences)) == sentences
    assert sources.sentences("\n".join(sentences)) == sentences


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="Ab. \"!?\n…“”'(。！」「说", max_size=60))
def test_nothing_is_lost(text):
    cuts = sources.sentence_spans(text)
    assert "".join(text[start:end] for start, end in cuts).strip() == text.strip()
    assert all(text[start:end].strip() for start, end in cuts)
