"""generate_conditional.py as a user runs it: every way to write, a conversation, every refusal."""

import io
import json
import sys

import pytest

import generate_conditional
from base.files import UserError
from text.forms import FORMS


def write(conditional_world, form: str, *flags: str, capsys) -> str:
    generate_conditional.main(
        [
            "--checkpoint",
            str(conditional_world / form / "best.pt"),
            "--threads",
            "1",
            "--device",
            "cpu",
            *flags,
        ]
    )
    return capsys.readouterr().out


def refusal(main, words, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        main([str(word) for word in words])
    assert all(error.value.parts) and "\n" not in str(error.value)


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_write(conditional_world, form, tmp_path, capsys):
    prompt = "Ann had a cat."
    out = ["--html", str(tmp_path / "a.html"), "--json", str(tmp_path / "a.json")]
    said = write(
        conditional_world, form, "--prompt", prompt, "--num_samples", "3", *out, capsys=capsys
    )
    rows = [json.loads(line) for line in (tmp_path / "a.json").read_text().splitlines()]
    assert (
        said.count(prompt) == 3
        and len(rows) == 3
        and all(row["text"].startswith(prompt) and row["kind"] == "continue" for row in rows)
    )
    assert "Unmasking" in (tmp_path / "a.html").read_text()
    assert all(
        row["nats_per_token"] > 0
        and len(row["tokens"]) == len(row["step"]) == len(row["probability"])
        for row in rows
    )
    alone = write(
        conditional_world,
        form,
        "--prompt",
        prompt,
        "--num_samples",
        "3",
        "--batch_size",
        "1",
        capsys=capsys,
    )
    assert alone == said  # the batch does not change a text
    said = write(
        conditional_world,
        form,
        "--prompt",
        prompt,
        "--ending",
        "They were glad.",
        "--length",
        "5",
        "--show",
        capsys=capsys,
    )
    assert said.rstrip().endswith("They were glad.") and "·" in said
    flags = (
        []
        if form == "ar"
        else ["--rerank", "2", "--guidance", "1.5", "--sampler", "confidence", "--steps", "5"]
    )
    assert "was glad" in write(
        conditional_world,
        form,
        "--template",
        "Ann had [MASK*2] and [MASK*] was glad.",
        *flags,
        capsys=capsys,
    )


def test_a_conversation(conditional_world, monkeypatch, capsys):
    """Typed lines: fill, fill again, number, edit, a mistake, and the end of the input."""
    lines = [
        "",
        "Ann had a [MASK*4] and was glad.",
        "",
        "?",
        "=1 Ben",
        "=99 x",
        "a [MASK",
        "Dan had a dog.",
        "q",
        "never read",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    said = write(conditional_world, "context", "--interactive", capsys=capsys).splitlines()
    assert (
        sum("nats per token" in line for line in said) == 4
        and sum(line.startswith("error: found") for line in said) == 2
    )
    assert any(line.startswith("1 Ann  2 had") for line in said) and any(
        line.startswith("Ben had a") for line in said
    )
    assert any(line.startswith("Dan had a dog.") for line in said)


def test_blanks_that_grow(conditional_world, free_run, tmp_path, capsys):
    """--edit_lengths writes texts and their edits; without it the same model draws lengths."""
    words = ["--checkpoint", str(free_run), "--threads", "1", "--device", "cpu"]
    words += ["--template", "Ann had [MASK*2] and [MASK*] was glad.", "--num_samples", "3"]
    out, said = tmp_path / "a.json", []
    for flags in ([], ["--edit_lengths"], ["--edit_lengths", "--canvas", "4", "--show"]):
        generate_conditional.main([*words, *flags, "--json", str(out)])
        said.append(capsys.readouterr().out)
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert said[-1].count("was glad") >= 3 and len(rows) == 3
        assert ("canvas" in rows[0]) == bool(flags)
        for row in rows:
            assert len(row["tokens"]) == len(row["step"]) == len(row["probability"])
    assert all(row["canvas"] == [2, 4] for row in rows) and "·" in said[2]
    generate_conditional.main([*words, "--edit_lengths", "--batch_size", "1"])
    assert capsys.readouterr().out == said[1]
    edited = [*words, "--edit_lengths"]
    for flags, message in (
        (("--html", tmp_path / "a.html"), "--html with --edit_lengths"),
        (("--guidance", "2"), "--guidance with --edit_lengths"),
        (("--speculate", "2", "--sampler", "confidence"), "--speculate with --edit_lengths"),
        (("--sampler", "remask"), "--sampler remask with --edit_lengths"),
        (("--canvas", "95"), "--canvas 95"),
    ):
        refusal(generate_conditional.main, [*edited, *flags], message)
    refusal(generate_conditional.main, [*words, "--canvas", "4"], "without --edit_lengths")
    for form in FORMS:
        words[1] = str(conditional_world / form / "best.pt")
        refusal(generate_conditional.main, [*words, "--edit_lengths"], "not trained to edit")


def test_refusals_of_generation(conditional_world, tmp_path, capsys):
    cases = {
        (): "nothing to write",
        ("--prompt", " "): "an empty --prompt",
        ("--ending", "x"): "an ending without a prompt",
        ("--prompt", "x", "--ending", ""): "empty --ending",
        ("--prompt", "Ann had a cat. " * 60): "at most 96 together",
        ("--prompt", "x", "--length", "200"): "at most 96 together",
        ("--prompt", "x", "--length", "-1"): "--length -1",
        ("--template", "no blank"): "the template 'no blank'",
        ("--template", "a [MASK*0]"): "the blank",
        ("--template", "[MASK]", "--prompt", "x"): "--template with",
        ("--interactive", "--prompt", "x"): "--interactive with",
        ("--prompt", "x", "--num_samples", "0"): "--num_samples 0",
        ("--prompt", "x", "--rerank", "0"): "--rerank 0",
        ("--prompt", "x", "--sampler", "confidance"): "--sampler",
    }
    for flags, message in cases.items():
        refusal(
            generate_conditional.main,
            ["--checkpoint", conditional_world / "context" / "best.pt", *flags],
            message,
        )
    refusal(
        generate_conditional.main,
        ["--checkpoint", conditional_world / "ar" / "best.pt", "--prompt", "x", "--guidance", "2"],
        "--guidance for an autoreg",
    )
    refusal(
        generate_conditional.main,
        ["--checkpoint", conditional_world / "denoiser" / "best.pt", "--prompt", "x"],
        "kind 'text'",
    )
