"""generate.py as a user runs it: what is given stays, the seed decides, the page is safe, mistakes are one line."""

import html
import json
import re

import pytest

import generate
from base.files import UserError
from loop import checkpoint
from tests.making.corpus import make_data, make_run
from tests.making.runs import as_soft_model


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    data_dir = make_data(folder / "data")
    return make_run(data_dir, folder / "diffusion") / "best.pt", make_run(
        data_dir, folder / "ar", "--objective", "ar"
    ) / "best.pt"


def samples(path, tmp_path, *words) -> list[dict]:
    generate.main(
        [
            "--checkpoint",
            str(path),
            "--json",
            str(tmp_path / "out.jsonl"),
            "--device",
            "cpu",
            *words,
        ]
    )
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("which", [0, 1])
def test_the_seed_decides_and_the_batch_size_does_not(runs, tmp_path, which):
    texts = [
        [
            one["text"]
            for one in samples(
                runs[which], tmp_path, "--num_samples", "5", "--seed", seed, "--batch_size", size
            )
        ]
        for seed, size in (("1", "5"), ("1", "1"), ("1", "2"), ("2", "5"))
    ]
    assert texts[0] == texts[1] == texts[2] != texts[3]
    assert len(set(texts[0])) == 5


def test_a_template_keeps_its_words(runs, tmp_path):
    """Words before, between and behind blanks survive; the blanks have the asked number of tokens; calls are at most steps."""
    tokenizer = checkpoint.open_model(runs[0])[1]
    for one in samples(
        runs[0],
        tmp_path,
        "--template",
        "Ann had a [MASK*3] hen. The [MASK] saw",
        "--num_samples",
        "3",
        "--steps",
        "2",
    ):
        assert (
            one["text"].startswith("Ann had a")
            and " hen. The" in one["text"]
            and one["text"].endswith(" saw")
        )
        assert sum(step > 0 for step in one["step"]) == 4 and one["calls"] <= 2
        assert (one["tokens"][0], one["tokens"][-1]) == (
            tokenizer.bos,
            tokenizer.eos,
        ) and tokenizer.mask not in one["tokens"]
        assert all(
            p == 1 for p, step in zip(one["probability"], one["step"], strict=True) if step == 0
        )
    open_end = samples(
        runs[0], tmp_path, "--template", "Ann [MASK*2]", "--num_samples", "1", "--open_end"
    )[0]
    assert (
        tokenizer.eos != open_end["tokens"][len(tokenizer.encode("Ann"))]
        and len(open_end["tokens"]) == 1 + len(tokenizer.encode("Ann")) + 2
    )


def test_lengths(runs, tmp_path):
    statistics = checkpoint.load(runs[0])["statistics"]["row_lengths"]
    assert all(
        len(one["tokens"]) == 20
        for one in samples(runs[0], tmp_path, "--length", "20", "--num_samples", "2")
    )
    drawn = [len(one["tokens"]) for one in samples(runs[0], tmp_path, "--num_samples", "12")]
    assert len(set(drawn)) > 1 and all(statistics[n] > 0 for n in drawn)


@pytest.mark.parametrize(
    "words",
    [
        ["--sampler", "threshold", "--threshold", "0.2"],
        ["--sampler", "remask", "--remask", "loop", "--steps", "9"],
        ["--sampler", "entropy_bound", "--block_size", "6"],
        ["--temperature", "0"],
        ["--top_p", "0.5"],
    ],
)
def test_sampler_flags_matter(runs, tmp_path, words):
    plain, other = (
        samples(runs[0], tmp_path, "--length", "24", "--num_samples", "2", *flags)
        for flags in ([], words)
    )
    assert [one["tokens"] for one in plain] != [one["tokens"] for one in other]


def test_show_prints_frames(runs, tmp_path, capsys):
    for path in runs:
        samples(path, tmp_path, "--length", "20", "--num_samples", "1", "--show")
        out = capsys.readouterr().out
        assert out.startswith("--- sample 1 ---\n[1/") and "\033" not in out
        frames = [
            frame.count("·")
            for frame in out.split("\n\n")
            if "/12]" in frame or re.match(r"(--- .*\n)?\[\d+/", frame)
        ]
        assert frames == sorted(frames, reverse=True) and frames[-1] == 0 and len(frames) <= 12


def test_the_page_is_self_contained_and_safe(runs, tmp_path):
    evil = "</script><!-- é 漢 &amp; [MASK*2]"
    generate.main(
        [
            "--checkpoint",
            str(runs[0]),
            "--template",
            evil,
            "--html",
            str(tmp_path / "page.html"),
            "--num_samples",
            "2",
        ]
    )
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=|https?://|@import", page)
    assert page.count("</script>") == 1 and "<!--" not in page
    texts = re.findall(r'<p class="caption".*?>(.*?)</p>', page, re.S)
    given = re.findall(r'<span data-step="0".*?>(.*?)</span>', texts[0])
    assert len(texts) == 2 and html.unescape("".join(given)).startswith("</script>")
    assert str(tmp_path) not in page and "seed&nbsp;0" in page


def test_refusals(runs, tmp_path, monkeypatch):
    for words, message in (
        (["--steps", "0"], "--steps 0"),
        (["--temperature", "-1"], "--temperature -1"),
        (["--num_samples", "0"], "--num_samples 0"),
        (["--top_p", "0"], "--top_p 0"),
        (["--length", "2"], "--length 2"),
        (["--length", "49"], "3 to 48"),
        (["--template", "no blank"], "without a blank; expected blanks such as"),
        (["--template", ""], "blanks such as"),
        (["--template", "a [MASK*0]"], r"the blank '.MASK.0.'"),
        (["--template", "a [MASK*x] [MASK]"], "blanks such as"),
        (["--template", "a [MASK*49]"], "at most 48, the model's length"),
        (["--template", "a [MASK*47] b"], "at most 48, the model's length"),
        (["--sampler", "confident"], "did you mean confidence"),
        (["--html", f"{__file__}/page.html"], "test_generate.py"),
        (["--stepz", "3"], "expected --steps"),
        (["--d_model", "3"], "--d_model"),
    ):
        with pytest.raises(UserError, match=message):
            generate.main(["--checkpoint", str(runs[0]), *words])
    with pytest.raises(UserError, match="blanks at the end only"):
        generate.main(["--checkpoint", str(runs[1]), "--template", "a [MASK] b"])
    (tmp_path / "cut.pt").write_bytes(runs[0].read_bytes()[:5000])
    with pytest.raises(UserError, match="damaged or truncated"):
        generate.main(
            ["--checkpoint", str(tmp_path / "cut.pt"), "--html", str(tmp_path / "never.html")]
        )
    assert not (tmp_path / "never.html").exists()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no text checkpoint below this folder"):
        generate.main([])


def test_the_twin_says_what_it_ignores(runs, tmp_path, capsys):
    samples(runs[1], tmp_path, "--num_samples", "1", "--steps", "4", "--sampler", "margin")
    assert "--sampler, --steps means nothing to it" in capsys.readouterr().err


# A block model


@pytest.fixture(scope="module")
def block_runs(tmp_path_factory):
    """Checkpoints that learnt some block sizes: with the whole length of 48, and without it."""
    folder = tmp_path_factory.mktemp("blocks")
    data = make_data(folder / "data")
    return [
        make_run(data, folder / sizes, "--block_sizes", sizes) / "best.pt"
        for sizes in ("1,8,48", "1,8")
    ]


def test_block_sizes_are_chosen_and_told(block_runs, tmp_path, capsys):
    told = ("the text as a whole", "blocks of 8")
    for path, how in zip(block_runs, told, strict=True):
        assert len(samples(path, tmp_path, "--num_samples", "2")) == 2
        assert f"writing: {how} (trained block sizes: 1, 8" in capsys.readouterr().err
    for path in block_runs:
        one, other = (
            samples(path, tmp_path, "--block_size", size, "--num_samples", "3") for size in "18"
        )
        assert [drawn["text"] for drawn in one] != [drawn["text"] for drawn in other]
        assert all(len(drawn["tokens"]) <= 48 for drawn in one + other)


def test_blocks_keep_the_promises_of_texts(block_runs, tmp_path):
    """The seed decides and the batch does not; words of a template stay; texts may be long."""
    words = ["--block_size", "8", "--num_samples", "4"]
    alone, together = (
        samples(block_runs[1], tmp_path, *words, "--batch_size", size) for size in "14"
    )
    assert alone == together
    for drawn in samples(block_runs[1], tmp_path, *words, "--template", "Ann had a [MASK*9] hen."):
        assert drawn["text"].startswith("Ann had a") and drawn["text"].endswith(" hen.")
    long = samples(block_runs[1], tmp_path, *words, "--length", "100", "--temperature", "0.5")
    assert max(len(drawn["tokens"]) for drawn in long) > 48


def test_streams_print_what_is_written(block_runs, tmp_path, capsys):
    words = ["--block_size", "8", "--num_samples", "2"]
    plain = samples(block_runs[0], tmp_path, *words)
    printed = capsys.readouterr().out
    assert samples(block_runs[0], tmp_path, *words, "--stream") == plain
    assert capsys.readouterr().out == printed


def test_refusals_of_blocks(runs, block_runs):
    for path, words, message in (
        (block_runs[0], ["--block_size", "4"], "--block_size 4 .* one of 1, 8, 48"),
        (block_runs[0], ["--stream"], "--stream for a text that is written as a whole"),
        (block_runs[0], ["--length", "60"], "3 to 48, the model's length"),
        (runs[0], ["--stream"], "train.py --block_sizes"),
        (runs[0], ["--stale_cache", "dual"], "add --block_size 32"),
        (runs[1], ["--stale_cache", "dual", "--block_size", "8"], "a plain denoiser"),
        (runs[0], ["--stale_cache", "dual", "--block_size", "8", "--speculate", "1"], "break"),
        (runs[1], ["--stream"], "train.py --block_sizes"),
        (block_runs[1], ["--stream", "--show"], "--stream with --show"),
    ):
        with pytest.raises(UserError, match=message):
            generate.main(["--checkpoint", str(path), *words])


def test_soft_masks_write_in_one_pass_or_two(runs, tmp_path):
    """--carry gives other texts than two passes, and the batch size still changes none of them."""
    # A network of four steps is unsure of all tokens: so a belief counts at any entropy here.
    soft = as_soft_model(runs[0], tmp_path / "soft.pt", w_s=1.0, w_a=0.0)
    words = ["--num_samples", "4", "--steps", "6", "--seed", "3"]
    one = [samples(soft, tmp_path, *words, *more) for more in ([], ["--carry"])]
    again = samples(soft, tmp_path, *words, "--carry", "--batch_size", "1")
    assert [row["tokens"] for row in one[1]] == [row["tokens"] for row in again]
    assert one[0][0]["probability"] != one[1][0]["probability"]
    for path, more in ((runs[0], ["--carry"]), (runs[1], ["--carry"])):
        with pytest.raises(UserError, match="--carry with a network without soft masks"):
            generate.main(["--checkpoint", str(path), *more])
    with pytest.raises(UserError, match="--speculate 2 with --carry"):
        generate.main(["--checkpoint", str(soft), "--carry", "--speculate", "2"])
