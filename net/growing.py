"""Writes rows whose blanks grow and shrink: the sampler of net/free_lengths.py.

A call asks the network about the masked places of each row. Some of them, the best of the chosen
order, draw a label: a word, [expand] or [delete]. A row with c calls left and M masked places draws
for ceil(M / c) of them. In its last call it draws words only, so it always ends: after `steps`
calls at most, and with at most `most` tokens.

A label is drawn in two stages: an edit or a word, then which word. Temperature and top_p change the
second stage only, so lengths keep their law. The likeliest edits do not give a likely length: a
blank that ends at each place with a probability of 10% would never end (docs/log/text.md).

Several labels of one call may not fit together, such as a cut before a new word. They are applied
in their order. A label that does not fit any more is dropped, and its place stays masked.

With one place per call at temperature 1, a perfect network draws from the law of the texts, in
every order and from every start (text/free_paths.py). Several places per call are an approximation,
as for blanks of known lengths.

Shapes: B rows, L positions, M selected places, V' ids that can be written.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from base.config import SampleConfig
from net.draws import certainty, draw_tokens, draw_uniforms, log_prob_of, pick
from net.free_lengths import (
    DELETE,
    EDITS,
    EXPAND,
    FRESH,
    GREW,
    KNOWN,
    SHRANK,
    Canvas,
    Labels,
    Places,
    bar,
    lay_out,
)

ORDERS = ("first_hitting", "left_to_right", "confidence", "margin", "entropy")
BELOW_1 = 1 - 2**-53  # the largest float64 below 1


@dataclass
class Growing:
    """A row and its trace.

    canvas: its current state. step, log_prob: per blank, the call that wrote each place (0: none)
    and the label's log-probability at temperature 1. calls: that drew a label. expansions: how
    many. cut: places that vanished. frames: the row's ids after each call, if asked for.
    """

    canvas: Canvas
    mask_id: int
    step: list[np.ndarray]
    log_prob: list[np.ndarray]
    calls: int = 0
    expansions: int = 0
    cut: int = 0
    frames: list[np.ndarray] = dataclasses.field(default_factory=list)

    @classmethod
    def begin(cls, canvas: Canvas, mask_id: int) -> "Growing":
        """A row before its first call. The canvas is copied."""
        blanks = [blank.copy() for blank in canvas.blanks]
        canvas = Canvas(canvas.given, blanks, list(canvas.states))
        step = [np.zeros(len(blank), dtype=np.int64) for blank in blanks]
        return cls(canvas, mask_id, step, [np.zeros(len(blank)) for blank in blanks])

    @property
    def is_open(self) -> bool:
        """Whether a place is still masked."""
        return any((blank == self.mask_id).any() for blank in self.canvas.blanks)

    def apply(self, drawn: list[tuple[int, int, int, float]], words: int, most: int) -> None:
        """Apply the labels of a call in their order.

        drawn: blank, index in it, label and log-probability. words: V'. most: tokens of a row.
        """
        self.calls += 1
        room = most - len(self.canvas)
        ends = [len(blank) for blank in self.canvas.blanks]
        wider = set()
        for number, index, label, nats in drawn:
            if label == words + EXPAND:
                if room > 0 and self.canvas.states[number] in (FRESH, GREW):
                    self.canvas.states[number] = GREW
                    wider.add(number)
                    room -= 1
            elif label == words + DELETE:
                if self.may_end(number, index, ends[number]):
                    self.canvas.states[number] = SHRANK
                    room += ends[number] - index
                    ends[number] = index
            elif index < ends[number]:
                self.canvas.blanks[number][index] = label
                self.step[number][index] = self.calls
                self.log_prob[number][index] = nats
        self.expansions += len(wider)
        for number, end in enumerate(ends):
            self.cut += len(self.canvas.blanks[number]) - end
            self.resize(number, end, number in wider)

    def may_end(self, number: int, index: int, end: int) -> bool:
        """Whether a blank may still end before this place, after other labels of the same call."""
        behind = self.canvas.blanks[number][index:]
        is_masked = bool((behind == self.mask_id).all())
        return self.canvas.states[number] in (FRESH, SHRANK) and 0 < index < end and is_masked

    def resize(self, number: int, end: int, wider: bool) -> None:
        """Keep the first `end` places of a blank, or add a place behind the last."""
        fresh = (0, int(wider))
        blanks = self.canvas.blanks
        blanks[number] = np.pad(blanks[number][:end], fresh, constant_values=self.mask_id)
        self.step[number] = np.pad(self.step[number][:end], fresh)
        self.log_prob[number] = np.pad(self.log_prob[number][:end], fresh)


def draw_labels(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Draw a label per row: an edit or a word, then which word.

    logits: (M, V' + 2). uniform: (M,) float64 in [0, 1), of which both stages read a part.
    Returns labels (M,) int64 and their log-probabilities at temperature 1, (M,) float64.
    """
    words = logits[:, :-EDITS]
    weight = by_kind(logits).exp()  # (M, 3): expand, delete, a word
    kind = pick(weight, uniform)
    # What is left of the number, once it has decided the kind, is uniform again.
    before = weight.cumsum(-1).gather(-1, kind[:, None])[:, 0]
    own = weight.gather(-1, kind[:, None])[:, 0]
    point = uniform.to(weight.device) * weight.sum(-1)
    rest = ((point - before + own) / own).clamp(0.0, BELOW_1)
    word, _ = draw_tokens(words, rest, temperature, top_p)
    label = torch.where(kind == EDITS, word, words.shape[-1] + kind)
    return label, log_prob_of(logits, label)


def by_kind(logits: Tensor) -> Tensor:
    """Log-probabilities of [expand], [delete] and any word: (M, V' + 2) -> (M, 3) float64."""
    log_prob = logits.double().log_softmax(-1)
    word = log_prob[:, :-EDITS].logsumexp(-1, keepdim=True)
    return torch.cat([log_prob[:, -EDITS:], word], -1)


def sureness(logits: Tensor, sampler: str) -> Tensor:
    """How sure the network is of each place, larger is surer: (M, V' + 2) -> (M,) float64."""
    if sampler != "confidence":
        return certainty(logits, sampler).double()
    # The likeliest label of the likeliest kind. Words share the probability of their kind: an edit
    # may be likelier than each of them, and less likely than all of them.
    log_prob = logits.double().log_softmax(-1)
    edit = log_prob[:, -EDITS:].amax(-1)
    is_edit = by_kind(logits).argmax(-1) < EDITS
    return torch.where(is_edit, edit, log_prob[:, :-EDITS].amax(-1)).exp()


def rank(
    labels: Labels, places: Places, sampler: str, rngs: list[torch.Generator]
) -> tuple[Tensor, Tensor | None]:
    """A score of each masked place, the best draws first: (B, L) float64, -inf elsewhere.

    Also the logits of the masked places, if the score comes from them.
    """
    masked, logits = places.masked, None
    if sampler == "first_hitting":
        score = draw_uniforms(masked, rngs)
    elif sampler == "left_to_right":
        position = torch.arange(masked.shape[1])
        score = -position.double().expand(masked.shape)
    else:
        logits = bar(labels(places, masked), places, masked)
        score = torch.zeros(masked.shape, dtype=torch.float64)
        score[masked] = sureness(logits, sampler).cpu()
    return score.masked_fill(~masked, -torch.inf), logits


def take_call(
    labels: Labels,
    rows: list[Growing],
    left: int,
    config: SampleConfig,
    pad: int,
    most: int,
    rngs: list[torch.Generator],
) -> None:
    """One call for the rows, all of which have masked places. left: calls, this call included."""
    places = lay_out([row.canvas for row in rows], rows[0].mask_id, pad, most)
    if left == 1:
        places.expand[:] = False
        places.delete[:] = False
    score, logits = rank(labels, places, config.sampler, rngs)
    order = score.sort(dim=1, descending=True, stable=True).indices
    count = -(-places.masked.sum(1) // left)  # rounded up
    chosen = torch.zeros_like(places.masked)
    chosen.scatter_(1, order, torch.arange(order.shape[1]) < count[:, None])
    if logits is None:
        logits = bar(labels(places, chosen), places, chosen)
    else:
        logits = logits[chosen[places.masked].to(logits.device)]
    uniform = draw_uniforms(chosen, rngs)[chosen]
    label, nats = draw_labels(logits, uniform, config.temperature, config.top_p)
    words = logits.shape[-1] - EDITS
    label_at, nats_at = torch.zeros_like(places.tokens), torch.zeros(places.tokens.shape).double()
    label_at[chosen] = label.cpu()
    nats_at[chosen] = nats.cpu()
    for number, row in enumerate(rows):
        where = {position: (blank, index) for position, blank, index in row.canvas.places()}
        drawn = []
        for position in order[number, : int(count[number])].tolist():
            drawn.append(
                (
                    *where[position],
                    int(label_at[number, position]),
                    float(nats_at[number, position]),
                )
            )
        row.apply(drawn, words, most)


@torch.no_grad()
def write(
    labels: Labels,
    canvases: list[Canvas],
    config: SampleConfig,
    *,
    mask_id: int,
    pad: int,
    most: int,
    rngs: list[torch.Generator],
    keep_frames: bool = False,
) -> list[Growing]:
    """Write rows until no place is masked. Given tokens never change.

    config: its sampler (of ORDERS), steps, temperature and top_p are read. most: tokens that a row
    may have. rngs: a CPU generator per row. A row does not depend on the others.
    """
    rows = [Growing.begin(canvas, mask_id) for canvas in canvases]
    for call in range(config.steps):
        numbers = [number for number, row in enumerate(rows) if row.is_open]
        if not numbers:
            break
        asked = [rows[number] for number in numbers]
        own = [rngs[number] for number in numbers]
        take_call(labels, asked, config.steps - call, config, pad, most, own)
        if keep_frames:
            for row in asked:
                row.frames.append(row.canvas.ids())
    return rows


def state_of(is_free: bool) -> int:
    """The state of a blank before its first call."""
    return FRESH if is_free else KNOWN
