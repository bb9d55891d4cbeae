"""Experts: one is the dense network, the load is exact, and nobody sees who must not be seen."""

import dataclasses
import math

import pytest
import torch

import evaluate
import generate
import train
from base.config import ModelConfig, TrainConfig
from base.files import UserError
from loop import checkpoint, optim
from model import Denoiser
from net import anatomy, experts, painter, soft_masks
from net.free_lengths import with_edits
from net.text_encoder import TextConditioned
from tests.making.corpus import make_data, make_run
from tests.making.robots import Killed, killed_at
from tests.making.runs import content, same_run

CONFIG = ModelConfig(
    vocab_size=20, output_size=17, max_length=12, d_model=16, heads=2, layers=2, experts=4
)
KINDS: dict[str, dict] = {
    "plain": {},
    "two each": {"expert_capacity": 2.0, "expert_hidden": 8},
    "a share": {"expert_capacity": 1.3, "mlp": "gelu"},
    "time": {"time_conditioning": "sinusoidal"},
    "shift": {"logit_shift": True},
    "soft": {"soft_masks": True},
    "captions": {"condition_width": 6},
    "pictures": {"picture_side": 2, "picture_codes": 5},
    "twin": {"causal": True, "expert_capacity": 2.0},
}
LENGTHS = torch.tensor([5, 12, 8])


def made(seed: int = 0, **changes) -> Denoiser:
    """A random network with experts that differ, and a router that is sure of some tokens."""
    torch.manual_seed(seed)
    model = soft_masks.build(dataclasses.replace(CONFIG, **changes)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.mul_(8)
            if name.endswith("cross.gate"):
                weight.fill_(0.5)
    return model


def some_tokens(seed: int = 1) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 20, (len(LENGTHS), 12), generator=rng)


def features(rows: slice) -> torch.Tensor:
    rng = torch.Generator().manual_seed(2)
    return torch.randn(len(LENGTHS), 7, 6, generator=rng)[rows]


@torch.no_grad()
def ask(model: Denoiser, tokens, lengths, rows=slice(None)) -> torch.Tensor:
    """Logits of all positions, (B, L, V'), by the call that this kind of network has."""
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    share = torch.full((len(tokens),), 0.5)
    if isinstance(model, painter.Painter):
        denoise = model.bind_rows(lengths, torch.full((len(tokens),), 2))
    elif model.config.condition_width:
        denoise = model.bind(lengths, model.keys_values(features(rows)))
    else:
        denoise = model.bind(lengths)
    return denoise(tokens, share, everywhere).unflatten(0, tokens.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_equals_the_row_in_a_batch(kind):
    """What stands in the padding or in other rows changes no bit; a batch of one changes no
    choice, so only the rounding of products differs."""
    model, tokens = made(**KINDS[kind]), some_tokens()
    together = ask(model, tokens, LENGTHS)
    # With a shift, the first position reads the last position of the tensor, which is padding.
    first = int(model.config.logit_shift)
    for row, length in enumerate(LENGTHS.tolist()):
        elsewhere = some_tokens(seed=3)
        elsewhere[row, :length] = tokens[row, :length]
        same = ask(model, elsewhere, LENGTHS)
        assert torch.equal(same[row, first:length], together[row, first:length])
        rows = slice(row, row + 1)
        alone = ask(model, tokens[rows, :length], LENGTHS[rows], rows)[0]
        unpadded = ask(model, tokens[rows, :length], None, rows)[0]
        assert torch.allclose(alone[first:], together[row, first:length], atol=1e-4)
        assert torch.equal(unpadded, alone)


def test_one_expert_is_the_dense_network_bit_for_bit():
    for more in ({}, {"causal": True}, {"mlp": "gelu"}):
        size = dataclasses.replace(CONFIG, experts=0, **more)
        dense = soft_masks.build(size).eval()
        single = made(experts=1, **more)
        weights = {
            name.replace("mlp.", "mlp.experts.0."): w for name, w in dense.state_dict().items()
        }
        missing, unknown = single.load_state_dict(weights, strict=False)
        assert not unknown and all("router" in name for name in missing)
        for lengths in (None, LENGTHS):
            real = torch.arange(12) < (LENGTHS if lengths is None else lengths)[:, None]
            tokens = some_tokens()
            expected, found = (model(tokens, lengths=lengths) for model in (dense, single))
            assert torch.equal(found[real], expected[real])


def layer(**changes) -> tuple[experts.Experts, torch.Tensor, torch.Tensor]:
    """A block's experts, their input (B, L, D), and the mask of LENGTHS."""
    model = made(**changes)
    x = torch.randn(len(LENGTHS), 12, 16, generator=torch.Generator().manual_seed(5))
    real = torch.arange(12) < LENGTHS[:, None]
    return model.get_submodule("blocks.1.mlp"), x, real


@pytest.mark.parametrize("capacity", [0.3, 1.0, 1.3, 2.0, 4.0])
def test_every_expert_takes_its_load_of_the_likeliest(capacity):
    part, x, real = layer(expert_capacity=capacity)
    probability = part.probabilities(x)
    place, counts = part.chosen(probability, real)
    for row, length in enumerate(LENGTHS.tolist()):
        load = math.ceil(round(capacity * length / 4, 9))
        for expert in range(4):
            taken = place[row, expert][counts[row, expert]].tolist()
            likely = probability[row, :length, expert].tolist()
            best = sorted(range(length), key=lambda token, p=likely: -p[token])[:load]
            assert len(taken) == load and sorted(taken) == sorted(best)
    expected = torch.zeros_like(x)
    for row in range(len(x)):
        for number, expert in enumerate(part.experts):
            for token in place[row, number][counts[row, number]].tolist():
                weight = probability[row, token, number]
                expected[row, token] += weight * expert(x[row, token])
    assert torch.allclose(part(x, real[:, None, None]), expected, atol=1e-5)


def test_a_token_of_the_twin_passes_its_likeliest_experts():
    part, x, _ = layer(causal=True, expert_capacity=2.0)
    probability = part.probabilities(x)
    expected = torch.zeros_like(x)
    for row in range(len(x)):
        for token in range(x.shape[1]):
            for number in probability[row, token].topk(2).indices.tolist():
                weight = probability[row, token, number]
                expected[row, token] += weight * part.experts[number](x[row, token])
    assert torch.allclose(part(x), expected, atol=1e-5)


def test_of_equal_tokens_the_earlier_is_taken():
    assert experts.ranks(torch.tensor([0.2, 0.5, 0.5, 0.2])).tolist() == [2, 0, 1, 3]
    part, x, _ = layer()
    place, _ = part.chosen(torch.full((1, 12, 4), 0.25), None)
    assert place.tolist() == [[[0, 1, 2]] * 4]


@pytest.mark.parametrize("causal", [False, True])
def test_the_order_of_the_experts_changes_nothing(causal):
    model = made(causal=causal)
    other = made(causal=causal)
    order = [2, 0, 3, 1]
    weights = model.state_dict()
    for name, weight in list(weights.items()):
        if name.endswith("router.weight"):
            weights[name] = weight[order]
        if ".experts." in name:
            before, _, after = name.partition(".experts.")
            number, _, rest = after.partition(".")
            weights[name] = model.state_dict()[f"{before}.experts.{order[int(number)]}.{rest}"]
    other.load_state_dict(weights)
    tokens = some_tokens()
    assert torch.allclose(model(tokens), other(tokens), atol=1e-4)


def test_a_later_token_changes_no_earlier_logit_of_the_twin():
    model, tokens = made(**KINDS["twin"]), some_tokens()
    before = model(tokens)
    for place in range(1, 12):
        changed = tokens.clone()
        changed[:, place:] = (changed[:, place:] + 1) % 17
        assert torch.equal(model(changed)[:, :place], before[:, :place])
    # The denoiser sees both ways: this test can fail.
    model = made()
    assert not torch.equal(model(changed)[:, :11], model(tokens)[:, :11])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("causal", [False, True])
def test_router_and_every_expert_learn(causal, optimizer):
    model = made(causal=causal, expert_capacity=2.0)
    model(some_tokens(), lengths=LENGTHS).logsumexp(-1).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizers = optim.make_optimizers(model, TrainConfig(optimizer=optimizer))
    if optimizer == "muon":
        by_muon = {id(weight) for weight in optimizers[1].param_groups[0]["params"]}
        for name, weight in model.named_parameters():
            assert (id(weight) in by_muon) == (weight.ndim == 2 and "blocks" in name), name
    for each in optimizers:
        each.step()
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_muon_makes_each_matrix_of_each_expert_orthogonal_by_itself():
    """A small gradient of an expert is not lost beside the large gradient of another."""
    part = made().get_submodule("blocks.0.mlp")
    weights = [expert.up.weight for expert in part.experts]
    before = [weight.detach().clone() for weight in weights]
    for number, weight in enumerate(weights):
        weight.grad = torch.randn(weight.shape) * 1000.0**-number
    optim.Muon(weights, lr=1.0, weight_decay=0.0).step()
    for weight, start in zip(weights, before, strict=True):
        values = torch.linalg.svdvals(
            (start - weight.detach()) / (0.2 * math.sqrt(weight.shape[0]))
        )
        assert 0.5 < float(values.median()) < 1.5


def test_experts_without_tokens_have_gradients_of_zero():
    part, x, _ = layer(causal=True)
    torch.nn.init.zeros_(part.router.weight)  # all tie, so the first expert takes all tokens
    part(x).sum().backward()
    assert part.experts[0].up.weight.grad.any()
    assert not part.experts[3].up.weight.grad.any()


def test_the_start_is_that_of_a_dense_network():
    torch.manual_seed(0)
    model = soft_masks.build(dataclasses.replace(CONFIG, d_model=64))
    expert = model.get_submodule("blocks.0.mlp.experts.3")
    assert 0.018 < expert.up.weight.detach().std() < 0.022
    assert 0.009 < expert.down.weight.detach().std() < 0.011
    router = model.get_submodule("blocks.0.mlp.router").weight
    assert 0.015 < router.detach().std() < 0.025


def test_the_work_counts_the_experts_that_a_token_passes():
    dense = soft_masks.build(dataclasses.replace(CONFIG, experts=0))
    router = 6 * 2 * 4 * 16  # operations of 2 blocks' routers
    work = anatomy.training_flops(dense, 12)
    assert anatomy.training_flops(made(), 12) == work + router
    part = sum(weight.numel() for weight in dense.get_submodule("blocks.0.mlp").parameters())
    more = anatomy.training_flops(made(expert_capacity=1.5), 12)
    assert more == work + router + 6 * 2 * 0.5 * part


# ---- As a user runs it


def test_train_resume_evaluate_and_generate(tmp_path, capsys, monkeypatch):
    data = make_data(tmp_path / "data")
    flags = ["--experts", "4", "--expert_capacity", "1.5", "--dropout", "0.1"]
    flags += ["--max_steps", "6", "--save_every", "3"]
    make_run(data, tmp_path / "straight", *flags)
    run = tmp_path / "resumed"
    with monkeypatch.context() as patched:
        killed_at(4, patched, train)
        with pytest.raises(Killed):
            make_run(data, run, *flags)
    assert content(run, "resume.pt")["step"] == 3
    train.main(["--data_dir", str(data), "--out", str(run), "--resume"])
    same_run(tmp_path / "straight", run)
    path = str(run / "best.pt")
    evaluate.main(["--checkpoint", path, "--data_dir", str(data), "--documents", "4"])
    generate.main(["--checkpoint", path, "--num_samples", "2", "--steps", "3"])
    assert "4 experts" in checkpoint.describe(checkpoint.load(path))
    assert capsys.readouterr().out
    # A checkpoint from before there were experts opens as a dense network.
    make_run(data, tmp_path / "dense")
    saved = content(tmp_path / "dense", "best.pt")
    for name in ("experts", "expert_capacity", "expert_hidden"):
        del saved["model"][name]
    checkpoint.save(tmp_path / "old.pt", saved)
    assert checkpoint.open_model(tmp_path / "old.pt")[0].config.experts == 0


# ---- Refusals


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"experts": -1}, "--experts"),
        ({"expert_capacity": 0.0}, "--expert_capacity"),
        ({"experts": 0, "expert_capacity": 2.0}, "without --experts"),
        ({"experts": 0, "expert_hidden": 8}, "without --experts"),
        ({"expert_capacity": 4.5}, "at most all experts"),
        ({"causal": True, "expert_capacity": 1.5}, "in a twin; expected a whole number"),
        ({"block_sizes": "1,4"}, "--experts 4 with --block_sizes"),
        ({"quality_layers": 1}, "--experts 4 with --quality_layers"),
        ({"retrieve": 1, "condition_width": 6}, "--experts 4 with --retrieve"),
        ({"lora_rank": 2}, "--experts 4 with --lora_rank"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **settings)


def test_networks_that_cannot_have_experts():
    model = made()
    with pytest.raises(UserError, match="--free_lengths, a network of 4 experts"):
        with_edits(model)
    with pytest.raises(UserError, match="--form cross, a network of 4 experts"):
        TextConditioned(CONFIG, 1)
    with pytest.raises(UserError, match="a diagram, a network of 4 experts"):
        anatomy.describe(model, {})
    triangle = torch.ones(12, 12, dtype=torch.bool).tril()[None, None]
    with pytest.raises(UserError, match="reads a row part by part"):
        model(some_tokens(), attend=triangle)
