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
