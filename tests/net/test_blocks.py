"""Block diffusion: two copies equal the pass that writes, nothing leaks, the bound is the stated sum."""

import itertools

import pytest
import torch

import diffusion
from base.config import ModelConfig
from base.files import UserError
from model import Denoiser
from net import blocks
from net.twin import likelihoods
from tests.making.toys import (
    MASK,
    STRINGS,
    arbitrary,
    enumerated_bound,
    oracle,
    random_joint,
)
from tests.test_model import toy

LENGTH, HIDDEN, BOS = 12, 11, 10  # of the toy network: [MASK] is 11


def texts(rows=3, length=LENGTH):
    """Random rows behind [BOS], and the same rows with every other token masked."""
    clean = torch.randint(0, 9, (rows, length), generator=torch.Generator().manual_seed(1))
    clean[:, 0] = BOS
    noised = clean.clone()
    noised[:, 1::2] = HIDDEN
    return clean, noised


def block_causal(length, size):
    """Each token sees its own block and earlier blocks: (1, 1, L, L)."""
    block = torch.arange(length) // size
    return (block[:, None] >= block)[None, None]


def writing_pass(model, clean, noised, size):
    """The logits of each block as the writer computes them: clean blocks, then a noised block."""
    logits = []
    for left in range(0, clean.shape[1], size):
        seen = torch.cat([clean[:, :left], noised[:, left : left + size]], 1)
        logits.append(model(seen, attend=block_causal(seen.shape[1], size))[:, left:])
    return torch.cat(logits, 1)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("size", [1, 4, 8, LENGTH])
def test_two_copies_equal_the_pass_that_writes(size, shift):
    model, (clean, noised) = toy(logit_shift=shift), texts()
    every = torch.ones_like(clean, dtype=torch.bool)
    both = blocks.bind(model, size)(noised, clean, every).view(*clean.shape, -1)
    assert torch.allclose(both, writing_pass(model, clean, noised, size), atol=1e-5)


def seen_by(model, clean, noised, size, places):
    """Which tokens of the clean and the noised copy change the logits of these places: (L,) each."""
    read = []

    def keep(module, inputs, output):
        output.retain_grad()
        read.append(output)

    hook = model.embedding.register_forward_hook(keep)
    select = torch.zeros_like(clean, dtype=torch.bool)
    select[:, places] = True
    blocks.bind(model, size)(noised, clean, select).square().sum().backward()
    hook.remove()
    return [seen.grad[0].abs().sum(-1) > 0 for seen in read]


@pytest.mark.parametrize("size", [1, 4, 8])
def test_a_block_depends_on_itself_and_on_clean_blocks_before_it(size):
    """By gradients: nothing else has any, and all of that has some."""
    model, (clean, noised) = toy(), texts(rows=1)
    for left in range(0, LENGTH, size):
        places = slice(left, left + size)
        from_clean, from_noised = seen_by(model, clean, noised, size, places)
        position = torch.arange(LENGTH)
        assert from_clean.tolist() == (position < left).tolist()
        assert from_noised.tolist() == (position // size == left // size).tolist()


def test_a_later_block_changes_nothing():
    model, (clean, noised), select = toy(), texts(), torch.zeros(3, LENGTH, dtype=torch.bool)
    select[:, :8] = True
    other_clean, other_noised = clean.clone(), noised.clone()
    other_clean[:, 8:] = other_clean[:, 8:].flip(1)
    other_noised[:, 8:] = 3
    denoise = blocks.bind(model, 4)
    before = denoise(noised, clean, select)
    assert torch.equal(denoise(other_noised, other_clean, select), before)


def test_padding_is_not_seen():
    """A short row among longer rows has the losses that it has alone."""
    model, (clean, noised), lengths = toy(), texts(), torch.tensor([12, 6, 9])
    select = (noised == HIDDEN) & (torch.arange(LENGTH) < lengths[:, None])
    logits = blocks.bind(model, 4, lengths)(noised, clean, select)
    rows = torch.split(logits, select.sum(1).tolist())
    assert logits.isfinite().all()
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1), slice(0, length)
        alone = blocks.bind(model, 4)(noised[one], clean[one], select[one])
        assert torch.allclose(rows[row], alone, atol=1e-5)


def test_masks_have_exact_counts():
    """k of a block's n free tokens, weight n / k, no block left out, [BOS] and padding never."""
    free = (torch.arange(11) >= 1) & (torch.arange(11) < torch.tensor([[11], [5], [8]]))
    rng = torch.Generator().manual_seed(0)
    counts = set()
    for _ in range(40):
        uniform = blocks.noise_levels(free, 4, rng)
        noise = blocks.corrupt(free, 4, uniform, rng)
        assert not (noise.masked & ~free).any()
        n, k = (blocks.by_block(rows, 4).sum(1) for rows in (free, noise.masked))
        assert ((k >= 1) == (n >= 1)).all() and (k <= n).all()
        weight = blocks.token_weights(noise.masked, noise.weight, 4)
        assert weight.sum().item() == pytest.approx(
            free.sum().item()
        )  # a weight n / k for k tokens
        counts |= set(zip(n.tolist(), k.tolist(), strict=True))
    assert counts == {(0, 0), *((n, k) for n in (1, 3, 4) for k in range(1, n + 1))}
    levels = blocks.noise_levels(free, 4, rng)[blocks.by_block(free, 4).any(1)]
    assert (levels.sort().values * len(levels)).floor().tolist() == list(range(len(levels)))


def test_blocks_of_one_token_are_the_exact_loss_from_left_to_right():
    """-log p of token i is what the same weights say at a [MASK] in place i, run causally over the
    tokens before it. The twin says token i in place i - 1 instead: it has no [MASK]."""
    model, (clean, _) = toy(), texts()
    free = torch.ones_like(clean, dtype=torch.bool)
    free[:, 0] = False
    nats = 0.0
    for place in range(1, LENGTH):
        seen = torch.cat([clean[:, :place], torch.full((3, 1), HIDDEN)], 1)
        logits = model(seen, attend=block_causal(place + 1, 1))[:, -1]
        nats += torch.nn.functional.cross_entropy(logits, clean[:, place], reduction="sum").item()
    noise = {"mask_id": HIDDEN, "rng": torch.Generator()}
    loss, report = blocks.loss(blocks.bind(model, 1), clean, free, size=1, **noise)
    assert loss.item() == pytest.approx(nats / free.sum().item(), rel=1e-5)
    assert report["nats_per_token"] == report["masked_cross_entropy"]  # every weight is 1
    (exact,) = blocks.bound_estimates(blocks.bind(model, 1), clean, free, size=1, **noise)
    assert exact["nats"].sum().item() == pytest.approx(nats, rel=1e-5)


def test_with_a_shift_blocks_of_one_token_are_the_twin():
    """The weights of a twin are that twin, before any training: logits and likelihoods."""
    twin, model, (clean, noised) = toy(causal=True), toy(logit_shift=True), texts()
    every = torch.ones_like(clean, dtype=torch.bool)
    logits = blocks.bind(model, 1)(noised, clean, every).view(*clean.shape, -1)
    assert torch.allclose(logits[:, 1:], twin(clean)[:, :-1], atol=1e-5)
    every[:, 0] = False
    noise = {"mask_id": HIDDEN, "rng": torch.Generator()}
    (exact,) = blocks.bound_estimates(blocks.bind(model, 1), clean, every, size=1, **noise)
    assert torch.allclose(exact["nats"], likelihoods(twin, clean, every), atol=1e-4)


@pytest.mark.parametrize("size", [4, 8])
def test_with_a_shift_a_block_depends_on_itself_and_on_clean_blocks_before_it(size):
    """Its first token depends on the clean blocks alone. A last [MASK] gives keys to its block."""
    model, (clean, noised) = toy(logit_shift=True), texts(rows=1)
    for left in range(size, LENGTH, size):
        for place in (left, min(left + 1, LENGTH - 1)):
            from_clean, from_noised = seen_by(model, clean, noised, size, place)
            position = torch.arange(LENGTH)
            own = (position // size == left // size) & (place > left)
            assert from_clean.tolist() == (position < left).tolist()
            assert from_noised.tolist() == own.tolist()


@pytest.mark.parametrize("size", [LENGTH, 16])
def test_a_single_block_is_the_plain_loss(size):
    """To the bit, with the same random numbers, and so are the estimates of the bound."""
    model, (clean, _), lengths = toy(), texts(), torch.tensor([12, 6, 9])
    free = (torch.arange(LENGTH) >= 1) & (torch.arange(LENGTH) < lengths[:, None])
    uniform = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    given = {"mask_id": HIDDEN, "uniform": uniform}
    plain, _ = diffusion.loss(
        model.bind(lengths), clean, free, rng=torch.Generator().manual_seed(3), **given
    )
    denoise = blocks.bind(model, size, lengths)
    block, _ = blocks.loss(
        denoise, clean, free, size=size, rng=torch.Generator().manual_seed(3), **given
    )
    assert torch.equal(plain, block)
    given = {"mask_id": HIDDEN, "draws": 2}
    rngs = [torch.Generator().manual_seed(4) for _ in range(2)]
    one = diffusion.bound_estimates(model.bind(lengths), clean, free, rng=rngs[0], **given)
    other = blocks.bound_estimates(denoise, clean, free, size=size, rng=rngs[1], **given)
    for a, b in zip(one, other, strict=True):
        assert all(torch.allclose(a[name].double(), b[name].double()) for name in a)


# Enumeration


def test_blocks_of_one_token_are_a_distribution():
    """The likelihoods of all strings of length 4 over 3 symbols add up to 1, for any weights."""
    torch.manual_seed(0)
    size = ModelConfig(vocab_size=6, output_size=3, max_length=5, d_model=16, heads=2, layers=2)
    model = Denoiser(size).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.4)
    strings = torch.tensor([(4, *rest) for rest in itertools.product(range(3), repeat=4)])
    free = torch.ones_like(strings, dtype=torch.bool)
    free[:, 0] = False
    noise = {"mask_id": 5, "rng": torch.Generator()}
    (exact,) = blocks.bound_estimates(blocks.bind(model, 1), strings, free, size=1, **noise)
    assert exact["nats"].neg().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def in_blocks(denoise, size):
    """A denoiser of toys as a function of both copies: what it may not see is masked."""

    def both(noised, clean, select):
        logits = torch.zeros(*noised.shape, 3, dtype=torch.float64)
        for left in range(0, noised.shape[1], size):
            seen = torch.full_like(noised, MASK)
            seen[:, :left] = clean[:, :left]
            seen[:, left : left + size] = noised[:, left : left + size]
            every = torch.ones_like(select)
            block = denoise(seen, None, every).view(*noised.shape, 3)
            logits[:, left : left + size] = block[:, left : left + size]
        return logits[select]

    return both


def enumerated_blocks(denoise, string, size) -> float:
    """The sum of the blocks' bounds, each over all masks of the block."""
    total = 0.0
    for left in range(0, 3, size):
        seen = string.clone()
        seen[left + size :] = MASK
        free = torch.zeros(3, dtype=torch.bool)
        free[left : left + size] = True
        total += enumerated_bound(denoise, seen, free)
    return total


@pytest.mark.parametrize("size", [1, 2, 3])
def test_exact_conditionals_give_the_likelihood_at_every_size(size):
    """No block size costs anything in the limit: the bound is -log p, whatever is masked."""
    joint = random_joint()
    for string, probability in zip(STRINGS[::5], joint[::5], strict=True):
        bound = enumerated_blocks(oracle(joint), string, size)
        assert bound == pytest.approx(-probability.log().item(), abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_estimates_are_unbiased(size):
    """Of a denoiser whose conditionals fit no distribution, where the masks matter."""
    denoise, rows = arbitrary(), STRINGS[[5, 17, 22]].repeat(3000, 1)
    free = torch.ones_like(rows, dtype=torch.bool)
    rng = torch.Generator().manual_seed(0)
    draws = blocks.bound_estimates(
        in_blocks(denoise, size), rows, free, size=size, mask_id=MASK, rng=rng, draws=2
    )
    nats = torch.stack([draw["nats"] for draw in draws]).mean(0).view(3000, 3)
    for column, string in enumerate(STRINGS[[5, 17, 22]]):
        error = nats[:, column].std().item() / 3000**0.5
        expected = enumerated_blocks(denoise, string, size)
        assert nats[:, column].mean().item() == pytest.approx(expected, abs=4 * error + 1e-9)


def test_the_size_to_write_with():
    config = ModelConfig(max_length=64, block_sizes="16,1,4")
    assert config.trained_sizes == [1, 4, 16]
    assert blocks.choose(config, 0) == 16 and blocks.choose(config, 4) == 4
    whole = ModelConfig(max_length=64, block_sizes="16,64")
    assert [blocks.choose(whole, asked) for asked in (0, 64, 16)] == [0, 0, 16]
    assert blocks.choose(ModelConfig(), 7) == 0  # a plain denoiser
    with pytest.raises(UserError, match="--block_size 8 .* one of 1, 4, 16"):
        blocks.choose(config, 8)
