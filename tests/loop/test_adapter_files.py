"""Adapter files: a base with its adapter is the trained network, and another base is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

import export_onnx
import generate
import train
import train_captioning
from base.files import UserError
from loop import adapter_files, checkpoint
from net import adapters
from tests.making.corpus import make_run

WORDS = "embedding.weight"
STEPS = ["--learning_rate", "0.05", "--eval_every", "4", "--lora_rank", "2"]


@pytest.fixture(scope="module")
def trained(text_runs, tmp_path_factory):
    """A run folder of adapters for the text denoiser."""
    out = tmp_path_factory.mktemp("adapted") / "run"
    return make_run(text_runs.data, out, "--init_from", str(text_runs.denoiser), *STEPS)


def weights(model) -> torch.Tensor:
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_base_and_adapter_are_the_trained_network(trained, text_runs):
    path = trained / adapter_files.NAME
    own, _, saved = checkpoint.open_model(trained / "best.pt")
    merged, _, about = checkpoint.open_model(text_runs.denoiser, adapter=path)
    assert torch.equal(weights(own), weights(merged))
    assert not own.config.lora_rank and "lora_rank" not in saved["model"]
    assert about["statistics"] == saved["statistics"]
    base, _, _ = checkpoint.open_model(text_runs.denoiser)
    assert not torch.equal(weights(base), weights(merged))
    assert torch.equal(base.embedding.weight, merged.embedding.weight)


def changed(path, out, name: str):
    """A copy of a checkpoint in which one weight is twice as large."""
    saved = checkpoint.load(path)
    for weights_of in filter(None, (saved["weights"], saved["averaged"])):
        weights_of[name] = 2 * weights_of[name]
    checkpoint.save(out, saved)
    return out


def test_words_of_its_own_stand_in_the_file(text_runs, tmp_path):
    """With --lora_embedding the file holds all vectors, and still knows its base."""
    start = ["--init_from", str(text_runs.denoiser), *STEPS, "--lora_embedding"]
    run = make_run(text_runs.data, tmp_path / "run", *start)
    path = run / adapter_files.NAME
    assert WORDS in load_file(path)
    own, _, _ = checkpoint.open_model(run / "best.pt")
    merged, _, _ = checkpoint.open_model(text_runs.denoiser, adapter=path)
    base, _, _ = checkpoint.open_model(text_runs.denoiser)
    assert torch.equal(weights(own), weights(merged))
    assert not torch.equal(base.embedding.weight, merged.embedding.weight)
    # The words of the base are not the adapter's business, and all other weights are.
    for name, fits in ((WORDS, True), ("blocks.0.mlp.up.weight", False)):
        other = changed(text_runs.denoiser, tmp_path / f"{fits}.pt", name)
        if fits:
            assert torch.equal(weights(own), weights(checkpoint.open_model(other, adapter=path)[0]))
        else:
            with pytest.raises(UserError, match="another network"):
                checkpoint.open_model(other, adapter=path)
    words = ["--checkpoint", str(text_runs.denoiser), "--data_dir", str(text_runs.data)]
    with pytest.raises(UserError, match="words of its own"):
        export_onnx.main([*words, "--adapter", f"tales={path}", "--out", str(tmp_path / "b")])
    tampered = tmp_path / "adapter.safetensors"
    weight_by_name, about = adapter_files.read(path)
    weight_by_name[WORDS] = torch.zeros(3, 16)
    save_file(weight_by_name, tampered, adapter_of(about))
    with pytest.raises(UserError, match="do not fit its own description"):
        checkpoint.open_model(text_runs.denoiser, adapter=tampered)


def test_the_file_is_small(trained):
    own = load_file(trained / adapter_files.NAME)
    assert all(name.endswith(("lora_down", "lora_up")) for name in own)
    # Seven matrices in a block, two thin ones for each.
    assert len(own) == 14


@pytest.mark.parametrize("words", [[], ["--lora_embedding"]], ids=["plain", "words"])
def test_a_run_with_adapters_continues(text_runs, tmp_path, words):
    """The base stays, bit for bit; the adapters learn on, and the words if they are trained."""
    run = tmp_path / "run"
    start = ["--init_from", str(text_runs.denoiser), *STEPS, *words]
    make_run(text_runs.data, run, *start, "--max_steps", "2")
    first = torch.load(run / "last.pt", weights_only=True)["weights"]
    train.main(
        ["--data_dir", str(text_runs.data), "--out", str(run), "--resume", "--max_steps", "4"]
    )
    second = torch.load(run / "last.pt", weights_only=True)["weights"]
    learnt = {name for name in first if not torch.equal(first[name], second[name])}
    assert learnt == {name for name in first if adapters.is_own(name, bool(words))}
    assert (WORDS in learnt) is bool(words)


def test_scripts_take_an_adapter(trained, text_runs, tmp_path, capsys):
    words = ["--num_samples", "1", "--length", "12", "--seed", "3"]
    path = str(trained / adapter_files.NAME)
    generate.main(["--checkpoint", str(text_runs.denoiser), "--adapter", path, *words])
    written = capsys.readouterr().out
    generate.main(["--checkpoint", str(trained / "best.pt"), *words])
    assert capsys.readouterr().out == written
    with pytest.raises(UserError, match="another network"):
        export_onnx.main(
            ["--checkpoint", str(text_runs.twin), "--adapter", path, "--out", str(tmp_path / "b")]
        )


def test_bad_files_are_one_line(trained, text_runs, tmp_path):
    path = tmp_path / "adapter.safetensors"

    def refused(match: str):
        with pytest.raises(UserError, match=match):
            checkpoint.open_model(text_runs.denoiser, adapter=path)

    refused("missing|no file|expected an adapter")
    path.write_bytes(b"no adapter")
    refused("damaged or no adapter")
    save_file({"a": torch.zeros(1)}, path)
    refused("damaged or no adapter")
    own, about = adapter_files.read(trained / adapter_files.NAME)
    save_file(own, path, {"adapter": json.dumps(about | {"base": "0" * 16})})
    refused("another network")
    own.pop(next(iter(own)))
    save_file(own, path, {"adapter": json.dumps(about)})
    refused("do not fit its own description")


class Counted(TorchFunctionMode):
    """Notes the numbers of the largest tensor that is made."""

    largest = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.largest = max(self.largest, made.numel())
        return made


def test_a_huge_rank_asks_for_no_memory(trained, text_runs, tmp_path):
    """Small files that claim a rank of a billion, and a large one that has a rank of 100,000."""
    path = tmp_path / "adapter.safetensors"
    own, about = adapter_files.read(trained / adapter_files.NAME)
    base = checkpoint.open_model(text_runs.denoiser)[0]
    largest = max(weight.numel() for weight in base.state_dict().values())
    wide = {name: torch.zeros(16, 1).expand(-1, 16) for name in own}
    for weights, rank in ((own, 10**9), (own, 10**30), (own, 0), (wide, 17)):
        claims = about | {"model": about["model"] | {"lora_rank": rank}}
        save_file({name: it.contiguous() for name, it in weights.items()}, path, adapter_of(claims))
        with Counted() as counted, pytest.raises(UserError, match="do not fit its own description"):
            checkpoint.open_model(text_runs.denoiser, adapter=path)
        assert counted.largest <= largest * 4  # the bytes of a weight are counted too
    # A hole of 1 GB in a file takes no disk. Its weights have the rank that it claims.
    shapes = {}
    for name, weight in own.items():
        rows, columns = weight.shape
        shapes[name] = (10**6, columns) if name.endswith(adapters.DOWN) else (rows, 10**6)
    write_sparse(path, shapes, about | {"model": about["model"] | {"lora_rank": 10**6}})
    with Counted() as counted, pytest.raises(UserError, match="rank 1000000, wider than blocks"):
        checkpoint.open_model(text_runs.denoiser, adapter=path)
    assert counted.largest <= largest * 4  # the bytes of a weight are counted too


def adapter_of(about: dict) -> dict[str, str]:
    """The metadata of an adapter's file."""
    return {"adapter": json.dumps(about)}


def write_sparse(path, shapes: dict, about: dict) -> None:
    """A safetensors file of float32 zeros that takes no room on the disk."""
    header, end = {"__metadata__": adapter_of(about)}, 0
    for name, (rows, columns) in shapes.items():
        start, end = end, end + 4 * rows * columns
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [start, end]}
    words = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        file.truncate(8 + len(words) + end)


@pytest.mark.parametrize(
    "change",
    [
        lambda own, about: own.update({"embedding.weight": torch.zeros(300, 16)}),
        lambda own, about: about["model"].update(lora_norm=True),
        lambda own, about: about["model"].update(lora_targets="query"),
        lambda own, about: about["model"].update(lora_rank="2"),
        lambda own, about: about.update(model=[]),
        lambda own, about: about.update(statistics=[]),
        lambda own, about: about.update(statistics={}),
    ],
    ids=["a weight of the base", "no lengths", "fewer", "a word", "no model", "a list", "nothing"],
)
def test_other_weights_than_it_says(trained, text_runs, tmp_path, change):
    """One line, and no weight of the base is replaced."""
    path = tmp_path / "adapter.safetensors"
    own, about = adapter_files.read(trained / adapter_files.NAME)
    change(own, about)
    save_file(own, path, adapter_of(about))
    with pytest.raises(UserError):
        checkpoint.open_model(text_runs.denoiser, adapter=path)


def test_training_refuses_what_it_cannot_adapt(text_runs, scene_folder, tmp_path):
    with pytest.raises(UserError, match="without --init_from"):
        make_run(text_runs.data, tmp_path / "a", "--lora_rank", "2")
    with pytest.raises(UserError, match="--lora_targets with embedding"):
        start = ["--init_from", str(text_runs.denoiser), "--lora_targets", "embedding"]
        make_run(text_runs.data, tmp_path / "b", *STEPS, *start)
    with pytest.raises(UserError, match="no weights that fit"):
        start = ["--init_from", str(text_runs.denoiser), "--layers", "2"]
        make_run(text_runs.data, tmp_path / "c", *STEPS, *start)


def test_a_captioner_keeps_its_length_head_in_the_adapter(scene_folder, captioner, tmp_path):
    words = ["--lora_rank", "2", "--max_steps", "2", "--batch_size", "4", "--eval_images", "4"]
    sizes = checkpoint.load(captioner)["model"]
    for name in ("d_model", "heads", "layers"):
        words += [f"--{name}", str(sizes[name])]
    out = tmp_path / "run"
    data = ["--data_dir", str(scene_folder), "--out", str(out), "--init_from", str(captioner)]
    train_captioning.main([*data, *words, "--threads", "1"])
    own = load_file(out / adapter_files.NAME)
    assert any(name.startswith("length_head.") for name in own)
    merged, _, _ = checkpoint.open_model(captioner, adapter=out / adapter_files.NAME)
    model, _, _ = checkpoint.open_model(out / "best.pt")
    assert torch.equal(weights(model), weights(merged))
