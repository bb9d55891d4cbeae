"""The diagram of one block: its branches off the residual stream, and tables of weights below.

Everything drawn is passed in as plain values: names, shapes, counts.
"""

import math
from pathlib import Path

from show.diagrams import LEGEND, short
from show.sheet import FAINT, PALETTE, Sheet, formula_width

BRANCH = 284  # from the left edge of a branch to the next
INNER = 218  # width of what a branch holds
CORE = 46  # height of the box of the attention's formula
ROW = 15  # height of a table's row

Table = tuple[tuple[int, ...], list[tuple]]  # right edges of the columns, and the rows


def block(path: Path, model: dict, parts: list[dict], tables: list[Table]) -> list[Path]:
    """One block along the residual stream, and tables below it, side by side where there is room.

    parts: of each kind, title, note, count and weights {name: shape}. Returns the files written.
    """
    wide = len(parts) > 2
    lengths = [len(rows) for _, rows in tables]
    if tables:
        box_height = 50  # room for the shapes
        below = ROW * (max(lengths) if wide else sum(lengths) + 1) + 58
    else:
        box_height, below = 36, 34
    width, height = 48 + BRANCH * len(parts), 290 + 4 * box_height + below
    sheet, stream = Sheet(width, height), height - 84
    residual_stream(sheet, stream, model)
    for number, part in enumerate(parts):
        Branch(sheet, 26 + BRANCH * number, stream, box_height, model, part).draw()
    left, y = 30.0, below - 24.0
    for edges, rows in tables:
        draw_table(sheet, left, y, edges, rows)
        if wide:
            left = width * 0.56
        else:
            y -= ROW * (len(rows) + 1)
    sheet.text(width / 2, 14, LEGEND, 8.2, color=FAINT, within=width - 30)
    return sheet.save(path)


def residual_stream(sheet: Sheet, stream: float, model: dict) -> None:
    """The title, and the line that all branches leave and meet again."""
    width, height = sheet.width, sheet.height
    sheet.text(16, height - 23, f"One block of {model['layers']}", 13, ha="left", weight="bold")
    counted = f"{model['counts']['block']:,} parameters"
    sheet.text(width - 16, height - 23, counted, 8.8, ha="right", color=FAINT)
    for x, side in ((14, "left"), (width - 14, "right")):
        sheet.text(x, stream + 18, "x  " + model["shapes"]["blocks.0"], 8.6, ha=side)
    sheet.text(width / 2, stream + 18, "residual stream", 8.6, color=FAINT, style="italic")
    sheet.arrow((12, stream), (width - 6, stream), width=2.4)


def draw_table(
    sheet: Sheet, left: float, y: float, edges: tuple[int, ...], rows: list[tuple]
) -> None:
    """Rows of words downwards from y. The header and the sum are bold."""
    for number, cells in enumerate(rows):
        weight = "bold" if number in (0, len(rows) - 1) else "normal"
        for column, words in enumerate(cells):
            x = left + (edges[column - 1] if column else 0)
            style = {"ha": "right" if column else "left", "weight": weight}
            sheet.text(x, y - ROW * number, str(words), 7.9, **style)


class Branch:
    """One branch off the residual stream: from the norm at the top to the sum at its right end.

    The attributes are the lower edges of its rows, from top to bottom: norm, project (query, key,
    value, or gate and up), turn (their norms, or the activation), core (the product), out.
    """

    def __init__(
        self, sheet: Sheet, left: float, stream: float, height: float, model: dict, part: dict
    ):
        self.sheet, self.left, self.stream, self.height = sheet, left, stream, height
        self.part, self.kind, self.weights = part, part["kind"], part["weights"]
        self.model, self.head_width = model, model["width"] // model["heads"]
        self.colour = PALETTE[self.kind][1]
        self.x = x = left + 14
        self.middle = x + INNER // 2
        # SwiGLU (arXiv 2002.05202) has a gate; the plain MLP with GELU has none.
        self.gated = "gate.weight" in self.weights
        if self.kind != "mlp":
            self.names, self.slots, self.wide = ("query", "key", "value"), [x, x + 76, x + 152], 66
        elif self.gated:
            self.names, self.slots, self.wide = ("gate", "up"), [x, x + 115], 103
        else:
            self.names, self.slots, self.wide = ("up",), [x], INNER
        self.centres = [slot + self.wide / 2 for slot in self.slots]
        self.norm = stream - 26 - 16 - height
        self.project = self.norm - 24 - height
        self.turn = self.project - 18 - height
        self.core = self.turn - 20 - CORE
        self.out = self.core - 18 - height

    def draw(self) -> None:
        self.panel()
        self.norm_row()
        for middle, slot, name in zip(self.centres, self.slots, self.names, strict=True):
            self.down(middle, self.norm, self.project + self.height)
            self.weight_box(slot, self.project, self.wide, name, f"{name}.weight")
        if self.kind == "mlp":
            self.mlp()
        else:
            self.attention()
        self.join()

    def weight_box(self, x: float, y: float, width: float, title: str, name: str, after="") -> None:
        """A box for one weight: its title, its shape where there is room, how many values."""
        shape = self.weights[name]
        # Three lines do not fit into a box of 36 units.
        with_shape = self.height > 36 and len(shape) > 1
        words = " × ".join(map(str, shape)) if with_shape else ""
        size = short(math.prod(shape)) + after
        self.sheet.box(x, y, width, self.height, title, words, size, size=8.7)

    def down(self, x: float, start: float, end: float) -> None:
        self.sheet.arrow((x, start), (x, end), color=self.colour)

    def panel(self) -> None:
        bottom, height = self.out - 36, self.norm + self.height + 14 - self.out + 36
        style = {"facecolor": PALETTE[self.kind][0] + "80", "linewidth": 0.9}
        self.sheet.frame(self.left, bottom, 246, height, self.kind, radius=10, **style)
        title, count = self.part["title"], f"{self.part['count']:,}"
        style = {"color": self.colour, "weight": "bold"}
        self.sheet.text(self.left + 14, self.out - 19, title, 9.6, ha="left", **style)
        self.sheet.text(self.left + 232, self.out - 19, count, 8.6, ha="right", color=self.colour)

    def norm_row(self) -> None:
        """From the stream through the norm. In cross-attention only the query goes through it."""
        cross = self.kind == "cross"
        self.down(self.centres[0] if cross else self.middle, self.stream, self.norm + self.height)
        self.weight_box(self.x, self.norm, self.wide if cross else INNER, "RMSNorm", "norm")
        if cross:
            shape = f"(B, P, {self.weights['key.weight'][1]})"
            corner = (self.x + 76, self.norm, 142, self.height)
            self.sheet.box(*corner, "image", shape, kind="image", size=8.7)

    def mlp(self) -> None:
        """Activation of the first slot; with a gate, its product with the second."""
        self.down(self.centres[0], self.project, self.turn + self.height)
        activation = "SiLU" if self.gated else "GELU"
        shape = f"(B, L, {self.weights['up.weight'][0]})"
        corner = (self.slots[0], self.turn, self.wide, self.height)
        self.sheet.box(*corner, activation, shape, size=8.7)
        start = self.turn
        if self.gated:
            level = self.core + CORE / 2
            for end, y in ((self.centres[0], self.turn), (self.centres[1], self.project)):
                beside = self.middle + (-9 if end < self.middle else 9)
                self.sheet.arrow((end, y), (end, level), (beside, level), color=self.colour)
            self.sheet.sign(self.middle, level, "×", self.colour)
            start = self.core + 15
        self.down(self.middle, start, self.out + self.height)
        self.weight_box(self.x, self.out, INNER, "down", "down.weight")

    def attention(self) -> None:
        """Norms of query and key, the softmax, and the way out."""
        sheet, cross = self.sheet, self.kind == "cross"
        # Rotary angles come from places in the text (arXiv 2104.09864); a patch has none.
        rotary = "" if cross else ", rotary"
        for centre, slot, name in zip(self.centres[:2], self.slots, ("query", "key"), strict=False):
            self.down(centre, self.project, self.turn + self.height)
            self.weight_box(slot, self.turn, self.wide, "norm", f"{name}_norm.weight", rotary)
            self.down(centre, self.turn, self.core + CORE)
        self.down(self.centres[2], self.project, self.core + CORE)
        sheet.frame(self.x, self.core, INNER, CORE, "plain")
        # Scaled dot products: arXiv 1706.03762, equation 1.
        root = rf"\sqrt{{{self.head_width}}}"
        tex = rf"$\mathrm{{softmax}}(q\,k^{{\mathsf{{T}}}}/{root}\,)\;v$"
        sheet.formula(self.middle - formula_width(tex, 10.5) / 2, self.core + 25, tex, 10.5)
        note_level = self.core + 11
        sheet.text(self.middle, note_level, self.part["note"], 7.8, color=FAINT, within=208)
        self.down(self.middle, self.core, self.out + self.height)
        self.weight_box(self.x, self.out, 142 if cross else INNER, "out", "out.weight")
        if cross:  # zero at first, so that a trained model may get the branch
            self.weight_box(self.x + 160, self.out, 58, "× gate", "gate")
            level = self.out + self.height / 2
            sheet.arrow((self.x + 142, level), (self.x + 160, level), color=self.colour)

    def join(self) -> None:
        """Back up to the stream."""
        right, level = self.left + 260, self.out + self.height / 2
        path = ((self.x + INNER, level), (right, level), (right, self.stream - 8))
        self.sheet.arrow(*path, color=self.colour)
        self.sheet.sign(right, self.stream, "+", self.colour)
