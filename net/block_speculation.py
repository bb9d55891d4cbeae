"""One token after another with a block model, exactly, in fewer calls than tokens.

A network for several block sizes is its own guesser. Blocks of one token have an exact law, from
left to right. Larger blocks guess the next tokens at once. Blocks of one token check all guesses in
a single pass (the idea of S2D2, arXiv 2603.25702; here every token is checked). One round:

    1. A call reads the finished text, a [MASK] alone, and a block of k + 1 [MASK]s beside it.
       The lone [MASK] gives the exact law of the next token, which is drawn.
       The block gives the distributions P of the tokens behind it, from which k guesses are drawn.
    2. A call reads the new token and the guesses, and a lone [MASK] at each place behind them. Each
       lone [MASK] sees all before its place: its law Q is that of blocks of one token.
       A guess is kept with probability min(1, Q / P). The first that fails is drawn from
       max(0, Q - P), and the round ends. If all are kept, one more token is drawn.

With `logit_shift`, the token before a place gives its law, as in a twin, and no [MASK] is alone:
step 1 reads the finished text and the block, and step 2 the new token and the guesses.

So two calls write at least two tokens, and at most k + 2. The tokens have the law of --block_size 1
without guesses (arXiv 2211.17192, theorem 1), whatever the guesses are worth. A row is read alone,
because rows keep different numbers of guesses.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from base.config import SampleConfig
from model import Cache, Denoiser
from net.draws import distribution, log_prob_of, pick
from net.samplers import Sample
from net.speculation import keeps, remainder


class RoundCache(Cache):
    """Keys and values of finished tokens. A call's other tokens are overwritten by the next call.

    places: (L,) int64, where the next call's tokens stand in the text. room: more tokens than the
    model's length that a call may carry.
    """

    def __init__(self, room: int):
        super().__init__()
        self.room = room
        self.places = torch.empty(0, dtype=torch.long)

    def where(self, count: int) -> Tensor:
        return self.places

    def extend(self, layer: int, k: Tensor, v: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        return super().extend(layer, k, v, max_length + self.room)

    def advance(self, count: int) -> None:
        """Nothing is finished yet: `keep` says what is, once the guesses are checked."""

    def keep(self, count: int) -> None:
        """The first `count` tokens of the last call are finished."""
        super().advance(count)


class Row:
    """A text (1, L) while it is written from left to right."""

    def __init__(
        self,
        model: Denoiser,
        tokens: Tensor,
        config: SampleConfig,
        mask_id: int,
        rng: torch.Generator,
    ):
        self.model, self.config, self.mask_id, self.rng = model, config, mask_id, rng
        self.tokens = tokens  # the caller's own, written in place
        self.step = torch.zeros(tokens.shape, dtype=torch.long)
        self.log_prob = torch.zeros(tokens.shape, dtype=torch.float64)
        self.calls = 0
        beyond = max(0, tokens.shape[1] - model.config.max_length)
        self.cache = RoundCache(room=2 * config.speculate + 2 + beyond)

    def uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.rng, dtype=torch.float64)

    def weigh(self, logits: Tensor) -> Tensor:
        """What tokens are drawn from: (M, V') -> (M, V') float64."""
        return distribution(logits, self.config.temperature, self.config.top_p)

    def ask(self, clean: Tensor, masks: Tensor, together: int) -> Tensor:
        """One call: (C + M, D), which `Denoiser.logits` turns into logits.

        clean: (C,) int64, tokens of the text that are read, from the cache's end on. masks: (M,)
        their places. The last `together` of them are a block and see each other; the others are
        alone. All see the text before their place; the block sees the text before its first place.
        """
        device, held = self.tokens.device, self.cache.length
        start = self.cache.position
        behind = torch.arange(start, start + len(clean), device=device)
        alone = len(masks) - together
        self.cache.places = torch.cat([behind, masks])
        text = torch.arange(start - held, start + len(clean), device=device)  # keys of the text
        sees_until = torch.cat([behind + 1, masks[:alone], masks[alone:][:1].expand(together)])
        sees_text = text < sees_until[:, None]  # (C + M, held + C)
        longest = self.model.config.max_length
        # The window of net/block_writing.py: a finished token is read next to its successor.
        first = torch.cat([behind + 2, masks + 1]) - longest
        sees_text &= text >= first[:, None]
        number = torch.arange(len(clean) + len(masks), device=device)
        in_block = number >= len(clean) + alone
        sees_mask = number[:, None] == number[len(clean) :]
        sees_mask |= in_block[:, None] & in_block[len(clean) :]
        given = torch.full((len(masks),), self.mask_id, device=device)
        self.calls += 1
        tokens = torch.cat([clean, self.block_tokens(given, masks, alone)])[None]
        attend = torch.cat([sees_text, sees_mask], 1)[None, None]
        return self.model.trunk(tokens, None, None, None, self.cache, attend)[0]

    def block_tokens(self, given: Tensor, masks: Tensor, alone: int) -> Tensor:
        """[MASK]s, but in the block the words that the text already has."""
        known = self.tokens[0, masks[alone:]]
        return torch.cat([given[:alone], known])

    def put(self, place: int, token: int, logits: Tensor) -> None:
        """Write a token with its trace. logits: (1, V') of its exact law."""
        self.tokens[0, place] = token
        self.step[0, place] = self.calls
        self.log_prob[0, place] = log_prob_of(logits, torch.tensor([token], device=logits.device))

    def round(self, left: int, end: int) -> None:
        """Write from the first blank `left` on; `end` is behind the last blank."""
        ahead = min(self.config.speculate, end - left - 1)
        device = self.tokens.device
        block = torch.arange(left, left + ahead + 1, device=device)
        law, guesses = self.look_ahead(self.tokens[0, self.cache.position : left], block)
        self.cache.keep(left - self.cache.position)
        token = pick(self.weigh(law), self.uniform(1).to(device))
        self.put(left, int(token), law)
        if ahead:
            self.check(left, end, self.weigh(guesses))

    def look_ahead(self, unread: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
        """One call: logits of the law at the first place of the block, and of guesses behind it.

        unread: (C,) int64, the text that the cache does not hold. block: (k + 1,) places. Returns
        (1, V') and (k, V').
        """
        ahead, read = len(block) - 1, len(unread)
        together = len(block) if ahead else 0
        if self.model.config.logit_shift:
            x = self.ask(unread, block[:together], together)
            return self.model.logits(x[read - 1 : read]), self.model.logits(x[read : read + ahead])
        masks = torch.cat([block[:1], block]) if ahead else block
        logits = self.model.logits(self.ask(unread, masks, together)[read:])
        return logits[:1], logits[2:]

    def laws(self, text: Tensor, places: Tensor) -> Tensor:
        """One call: the logits (M, V') of the law at each of M places.

        text: (C,) int64, the new token and the guesses. Each place lies behind a token of the text.
        """
        if self.model.config.logit_shift:
            return self.model.logits(self.ask(text, places[:0], 0)[: len(places)])
        return self.model.logits(self.ask(text, places, 0)[len(text) :])

    def check(self, left: int, end: int, guessed: Tensor) -> None:
        """Guess the tokens behind `left`, check them in one call, and write what is kept.

        guessed: (k, V') float64, the distributions of the guesses.
        """
        ahead, device = len(guessed), self.tokens.device
        places = torch.arange(left + 1, left + 1 + ahead, device=device)
        known = self.tokens[0, places]
        free = known == self.mask_id
        guess = torch.where(free, pick(guessed, self.uniform(ahead).to(device)), known)
        text = torch.cat([self.tokens[0, left : left + 1], guess])
        masks = torch.arange(left + 1, min(left + 2 + ahead, end), device=device)
        logits = self.laws(text, masks)
        law = self.weigh(logits)
        drawn, checked = (all_.gather(1, guess[:, None])[:, 0] for all_ in (guessed, law[:ahead]))
        coin = keeps(self.uniform(ahead).to(device), drawn, checked) | ~free
        count = int(coin.long().cumprod(0).sum())
        last = self.uniform(1).to(device)
        for number in range(count):
            if free[number]:
                self.put(int(places[number]), int(guess[number]), logits[number : number + 1])
        self.cache.keep(1 + count)
        if count == len(masks):  # the text is complete
            return
        weight = law[count : count + 1]
        if count < ahead:
            weight = remainder(weight, guessed[count : count + 1])
        if self.tokens[0, masks[count]] == self.mask_id:
            token = int(pick(weight, last))
            self.put(int(masks[count]), token, logits[count : count + 1])


def sample(
    model: Denoiser,
    tokens: Tensor,
    config: SampleConfig,
    *,
    mask_id: int,
    rngs: list[torch.Generator],
    eos: int,
    pad: int,
    finished: Callable[[Tensor], None] | None = None,
    keep_frames: bool = False,
) -> Sample:
    """Fill every [MASK] of tokens (B, L) with the law of blocks of one token, row by row.

    config.speculate: guesses per round, at least 1. A drawn [EOS] ends its row as in
    `block_writing.sample`. finished: called after each round with all tokens. The result's `calls`
    are those of all rows together, because each row is read alone.
    """
    tokens = tokens.clone()
    rows = []
    for number, rng in enumerate(rngs):
        rows.append(Row(model, tokens[number : number + 1], config, mask_id, rng))
        for _ in rounds(rows[-1], eos, pad):
            if finished:
                finished(tokens)
    used = torch.tensor([row.calls for row in rows])
    step = torch.cat([row.step for row in rows])
    log_prob = torch.cat([row.log_prob for row in rows]).float()
    frames = []
    if keep_frames:
        for call in range(1, int(used.max()) + 1):
            frames.append(tokens.masked_fill((step > call).to(tokens.device), mask_id))
    return Sample(tokens, step, log_prob, int(used.sum()), used, used.clone(), frames)


def rounds(row: Row, eos: int, pad: int) -> Iterator[None]:
    """Write a row. Yields after each round, until no [MASK] is left or [EOS] was drawn."""
    tokens = row.tokens[0]
    fresh = tokens == row.mask_id
    position = torch.arange(len(tokens), device=tokens.device)
    words = ~fresh & (tokens != eos) & (tokens != pad)
    words_end = int((words * (position + 1)).max())  # behind the last given word
    while (tokens == row.mask_id).any():
        blank = position[tokens == row.mask_id]
        row.round(int(blank[0]), int(blank[-1]) + 1)
        ends = position[fresh & (tokens == eos) & (position >= words_end)]
        if len(ends):
            behind = position > ends[0]
            tokens[behind] = pad
            row.step[0, behind.cpu()] = 0
            row.log_prob[0, behind.cpu()] = 0.0
        yield
