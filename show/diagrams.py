"""Diagrams of boxes, arrows and tokens, as PNG and SVG (floor 0: matplotlib, imported when something is drawn).

Everything drawn is passed in as plain values: names, shapes, counts, words. Lengths are in hundredths of an inch from the
lower left corner, so that a sheet 900 wide is read at 900 pixels; y grows upwards.
"""

import functools
import io
import math
from pathlib import Path

from base import files

INK, FAINT, LINE = "#212529", "#5c656d", "#495057"
PALETTE = {  # kind: fill, edge
    "image": ("#e7f1fb", "#3b7dbf"),
    "attention": ("#e3f6f4", "#1f8f86"),
    "cross": ("#fdeaf0", "#c2416f"),
    "mlp": ("#efebfb", "#6f55c4"),
    "head": ("#e9f5ea", "#3f8f49"),
    "plain": ("#ffffff", "#868e96"),
    "panel": ("#f8f9fa", "#dee2e6"),
    "known": ("#ffffff", "#adb5bd"),
    "new": ("#ffe8cc", "#e8590c"),
    "mask": ("#343a40", "#343a40"),
    "later": ("#ffffff", "#ced4da"),
}
LEGEND = "B batch  ·  L length  ·  D width  ·  H heads  ·  V vocabulary  ·  P patches"
DPI = 200


def short(number: int) -> str:
    """1234567 -> 1.23 M."""
    return (
        f"{number / 1e6:.2f} M"
        if number >= 1e6
        else f"{number / 1e3:.1f} k"
        if number >= 1e4
        else f"{number:,}"
    )


@functools.cache
def width_of(words: str, size: float, weight: str = "normal", family: str = "DejaVu Sans") -> float:
    """How wide a text of `size` points is."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    return (
        TextPath((0, 0), words, size, prop=FontProperties(family=family, weight=weight))
        .get_extents()
        .width
        / 0.72
        if words.strip()
        else 0.0
    )


@functools.cache
def formula_width(tex: str, size: float) -> float:
    """How wide a formula of `size` points is."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    return (
        MathTextParser("path")
        .parse(tex, dpi=100, prop=FontProperties(size=size, math_fontfamily="cm"))
        .width
    )


class Sheet:
    """A white page of width × height to draw on."""

    def __init__(self, width: float, height: float):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        self.width, self.height = width, height
        self.figure = plt.figure(figsize=(width / 100, height / 100), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.axis("off")

    def text(
        self, x: float, y: float, words: str, size: float = 8.4, within: float = 0.0, **style
    ) -> None:
        """Words around (x, y), made smaller until they are no wider than `within`."""
        style = {
            "ha": "center",
            "va": "center_baseline",
            "color": INK,
            "family": "DejaVu Sans",
            "parse_math": False,
            **style,
        }
        if within:
            widest = max(
                width_of(line, size, style.get("weight", "normal"), style["family"])
                for line in words.split("\n")
            )
            size *= min(1.0, within / max(widest, 1.0))
        self.axes.text(x, y, words, fontsize=size, zorder=5, **style)

    def formula(self, x: float, y: float, tex: str, size: float, color: str = INK) -> None:
        """Mathtext from x on, its baseline at y. In the SVG it is outlines: TeX's fonts are not everywhere."""
        import matplotlib

        drawn = self.axes.text(
            x, y, tex, fontsize=size, color=color, zorder=5, math_fontfamily="cm", va="baseline"
        )
        as_text = drawn.draw

        def as_outlines(renderer):
            with matplotlib.rc_context({"svg.fonttype": "path"}):
                as_text(renderer)

        drawn.draw = as_outlines

    def frame(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        kind: str = "plain",
        radius: float = 6,
        **style,
    ) -> None:
        """An empty rounded rectangle whose lower left corner is (x, y)."""
        from matplotlib.patches import FancyBboxPatch

        fill, edge = PALETTE[kind]
        style = {"facecolor": fill, "edgecolor": edge, "linewidth": 1.1, "zorder": 2, **style}
        self.axes.add_patch(
            FancyBboxPatch(
                (x, y), width, height, boxstyle=f"round,pad=0,rounding_size={radius}", **style
            )
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        title: str,
        *notes: str,
        kind: str = "plain",
        size: float = 9.2,
    ) -> None:
        """A rounded box: a bold title, and below it one smaller line for each note."""
        self.frame(x, y, width, height, kind)
        lines = [
            (title, size, "bold", INK),
            *((note, size - 1.1, "normal", FAINT) for note in notes if note),
        ]
        for i, (words, points, weight, colour) in enumerate(lines):
            level = y + height / 2 + (len(lines) - 1 - 2 * i) * 7.2
            self.text(
                x + width / 2, level, words, points, within=width - 7, weight=weight, color=colour
            )

    def bar(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        title: str,
        note: str,
        count: str,
        kind: str = "plain",
    ) -> None:
        """A box of one line: bold title at the left, shape in the middle, count at the right."""
        self.frame(x, y, width, height, kind)
        level, left, right = y + height / 2, width_of(title, 9.2, "bold"), width_of(count, 8.4)
        self.text(x + 12, level, title, 9.2, weight="bold", ha="left")
        self.text(x + width - 12, level, count, 8.4, ha="right", color=FAINT)
        room = width - 24 - left - right - 24
        self.text(x + 12 + left + 12 + room / 2, level, note, 8.2, within=room, color=FAINT)

    def arrow(
        self,
        *points: tuple[float, float],
        dashed: bool = False,
        head: bool = True,
        color: str = LINE,
        width: float = 1.3,
    ) -> None:
        """A line through the points with rounded corners and, at the last, a head."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path as Curve

        if dashed and head:  # a solid head, or it would be dashed too
            (x0, y0), (x1, y1) = points[-2:]
            neck = (x1 - 9 * ((x1 > x0) - (x1 < x0)), y1 - 9 * ((y1 > y0) - (y1 < y0)))
            self.arrow(*points[:-1], neck, dashed=True, head=False, color=color, width=width)
            return self.arrow(neck, points[-1], color=color, width=width)
        vertices, codes = [points[0]], [Curve.MOVETO]
        for before, corner, after in zip(points[:-2], points[1:-1], points[2:], strict=True):
            reach = min(
                7.0,
                *(
                    max(abs(a - b) for a, b in zip(corner, other, strict=True)) / 2
                    for other in (before, after)
                ),
            )
            near, far = (
                tuple(c + reach * ((o > c) - (o < c)) for c, o in zip(corner, other, strict=True))
                for other in (before, after)
            )
            vertices += [near, corner, far]
            codes += [Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
        curve = Curve([*vertices, points[-1]], [*codes, Curve.LINETO])
        self.axes.add_patch(
            FancyArrowPatch(
                path=curve,
                arrowstyle="-|>,head_length=0.35,head_width=0.17" if head else "-",
                mutation_scale=15,
                color=color,
                linewidth=width,
                linestyle=(0, (3.5, 2.5)) if dashed else "-",
                zorder=3,
                joinstyle="miter",
                capstyle="butt",
                fill=head,
            )
        )

    def sign(self, x: float, y: float, words: str = "+", color: str = LINE) -> None:
        """A sum or a product on a line: + or × in a circle."""
        from matplotlib.patches import Circle

        self.axes.add_patch(
            Circle((x, y), 8, facecolor="white", edgecolor=color, linewidth=1.3, zorder=4)
        )
        for dx, dy in ((5, 0), (0, 5)) if words == "+" else ((3.4, 3.4), (3.4, -3.4)):
            self.axes.plot([x - dx, x + dx], [y - dy, y + dy], color=color, linewidth=1.3, zorder=5)

    def picture(self, x: float, y: float, side: float, pixels, sharp: bool = False) -> None:
        """Pixels (h, w, 3) in a square with rounded corners."""
        from matplotlib.patches import FancyBboxPatch

        drawn = self.axes.imshow(
            pixels,
            extent=(x, x + side, y, y + side),
            aspect="auto",
            zorder=2,
            interpolation="nearest" if sharp else "antialiased",
            origin="upper",
        )
        clip = FancyBboxPatch(
            (x, y),
            side,
            side,
            boxstyle="round,pad=0,rounding_size=5",
            transform=self.axes.transData,
        )
        drawn.set_clip_path(clip)
        self.axes.set(xlim=(0, self.width), ylim=(0, self.height))
        self.frame(
            x, y, side, side, "plain", radius=5, facecolor="none", edgecolor="#868e96", zorder=3
        )

    def tokens(
        self,
        x: float,
        y: float,
        words: list[str],
        states: list[str],
        room: float,
        height: float = 22,
    ) -> None:
        """A row of tokens that fills `room`, each as wide as its word needs; states: known, new, mask, later."""
        gap, natural = 4, [max(22.0, width_of(word, 8.4) + 11) for word in words]
        spare = (room - sum(natural) - gap * (len(words) - 1)) / len(words)
        for word, wide, state in zip(words, natural, states, strict=True):
            wide += spare
            style = {"linestyle": (0, (3, 2))} if state == "later" else {}
            self.frame(x, y, wide, height, state, radius=4.5, **style)
            if state in ("known", "new"):
                self.text(
                    x + wide / 2,
                    y + height / 2,
                    word,
                    8.4,
                    within=wide - 5,
                    color="#9a3412" if state == "new" else INK,
                )
            elif state == "mask":
                self.text(x + wide / 2, y + height / 2, "[M]", 7.6, color="#ced4da")
            x += wide + gap

    def save(self, path: Path) -> list[Path]:
        """path.png and path.svg, each whole or not at all. Text in the SVG is text."""
        import matplotlib
        from matplotlib import pyplot as plt
        from PIL import Image

        png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
        pixels = io.BytesIO()
        self.figure.savefig(pixels, format="png", facecolor="white", dpi=DPI)
        with files.replacing(
            png
        ) as file:  # 256 colours are enough for flat boxes, and a third of the bytes
            Image.open(pixels).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
                file, "PNG", optimize=True
            )
        with (
            matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}),
            files.replacing(svg) as file,
        ):
            self.figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
        plt.close(self.figure)
        return [png, svg]


def states_of(words: list[str], before: list[str] | None = None, hidden: str = "mask") -> list[str]:
    """known, new or hidden for each word of a row, "" being a word that is not there yet; new is what `before` had not."""
    return [
        hidden if not word else "new" if before is not None and not old else "known"
        for word, old in zip(words, before or words, strict=True)
    ]


def captioning(
    path: Path, model: dict, encoder: dict | None, words: list[str], now: list[str], then: list[str]
) -> list[Path]:
    """The whole captioner; without an encoder, the network that writes text, which is its right half.

    model: parameters, layers, width, vocabulary, causal; counts and shapes of its parts by name. encoder: name, patches, width, and
    where they are known parameters, side, image and features (pixels). words: the caption; now, then: a call's input and outcome.
    """
    counts, shapes = model["counts"], model["shapes"]
    parts = [part for part in ("attention", "cross", "mlp") if part in counts]
    top = 218.0 + 48 * len(parts)  # of the stack of blocks
    sheet = Sheet(900 if encoder else 528, top + 250)
    kind = "the autoregressive twin" if model["causal"] else "masked diffusion"
    sheet.text(
        16,
        top + 227,
        f"{'Captions' if encoder else 'Text'} by {kind}",
        13,
        ha="left",
        weight="bold",
    )
    frozen = f", {encoder['parameters']:,} frozen" if encoder and encoder.get("parameters") else ""
    sheet.text(
        sheet.width - 16,
        top + 227,
        f"{model['parameters']:,} parameters trained{frozen}",
        8.8,
        ha="right",
        color=FAINT,
    )
    sheet.text(
        sheet.width / 2,
        17,
        LEGEND + f"  ·  M {'drawn' if model['causal'] else 'masked'}",
        8.4,
        color=FAINT,
        within=sheet.width - 30,
    )
    left = 386 if encoder else 14
    sheet.frame(left, 36, 500, top + 172, "panel", radius=10)
    sheet.text(
        left + 18,
        top + 191,
        "once per call of the network",
        9,
        ha="left",
        color=FAINT,
        style="italic",
    )
    sheet.text(left + 432, top + 191, "parameters", 8.4, ha="right", color=FAINT, style="italic")
    if encoder:
        once_per_picture(sheet, model, encoder)
    x, middle, hidden = left + 18, left + 231, "later" if model["causal"] else "mask"
    note = lambda y, shape: sheet.text(middle + 11, y, shape, 8, ha="left", color=FAINT)

    sheet.tokens(x, 56, words, states_of(now, hidden=hidden), 426)
    sheet.arrow((middle, 78), (middle, 112))
    note(95, "(B, L)")
    time = counts.get("time", 0)
    sheet.bar(
        x,
        112,
        426,
        32,
        "embedding" + (" + masked share" if time else ""),
        f"V × D = {model['vocabulary']:,} × {model['width']:,}",
        short(counts["embedding"] + time),
    )
    sheet.arrow((middle, 144), (middle, 176))
    note(158, f"(B, L, D) = {shapes['embedding']}")

    y = 188.0
    for shift in (10, 5, 0):
        sheet.frame(x + shift, 176 + shift, 416, top - 176, "plain", radius=8)
    for part in parts:
        if part == "cross":
            sheet.arrow(
                (350, 160),
                (376, 160),
                (376, y + 17),
                (x + 12, y + 17),
                color=PALETTE["cross"][1],
                width=1.6,
            )
        sheet.bar(
            x + 12,
            y,
            392,
            34,
            model["titles"][part],
            model["about"][part],
            short(counts[part]),
            part,
        )
        y += 48
        if part != parts[-1]:
            sheet.arrow((middle, y - 14), (middle, y))
    sheet.text(x + 14, y + 14, f"{model['layers']} blocks", 9.6, ha="left", weight="bold")
    sheet.text(
        x + 392,
        y + 14,
        f"{model['layers']} × {short(counts['block'])}",
        8.4,
        ha="right",
        color=FAINT,
    )

    sheet.arrow((middle, y - 14), (middle, top + 46))
    note(top + 32, shapes["blocks.0"])
    sheet.bar(
        x,
        top + 46,
        426,
        32,
        "norm, logits",
        f"tied with the embedding, {shapes['logits']}",
        short(counts["norm"]),
    )
    sheet.arrow((middle, top + 78), (middle, top + 98))
    rule = "draws the next token" if model["causal"] else "picks positions, then draws their tokens"
    sheet.bar(x, top + 98, 426, 32, "sampler", rule, "none")
    sheet.arrow((middle, top + 130), (middle, top + 148))
    sheet.tokens(x, top + 148, words, states_of(then, now, hidden), 426)
    back, level = PALETTE["new"][1], top + 159
    sheet.arrow(
        (x + 427, level), (x + 450, level), (x + 450, 67), (x + 427, 67), dashed=True, color=back
    )
    again = "again, until [EOS]" if model["causal"] else "again, until no mask is left"
    sheet.text(x + 466, (level + 67) / 2, again, 8.2, color=back, rotation=90, va="center")
    return sheet.save(path)


def once_per_picture(sheet: Sheet, model: dict, encoder: dict) -> None:
    """The left half: from pixels to keys and values, and how long the caption will be."""
    counts, shapes, features = (
        model["counts"],
        model["shapes"],
        f"(B, {encoder['patches']}, {encoder['width']})",
    )
    sheet.frame(14, 36, 352, 534, "panel", radius=10)
    sheet.text(32, 553, "once per picture", 9, ha="left", color=FAINT, style="italic")
    sheet.picture(38, 412, 108, encoder["image"])
    side = encoder.get("side")
    sheet.text(92, 400, f"(B, 3, {side}, {side})" if side else "pixels", 8, color=FAINT)
    sheet.arrow((146, 466), (178, 466))
    known = encoder.get("parameters")
    sheet.box(
        178,
        428,
        170,
        76,
        "image encoder",
        encoder["name"] + ", frozen",
        short(known) if known else "",
        kind="image",
    )
    sheet.arrow((263, 428), (263, 372))
    sheet.text(273, 401, f"P = {encoder['patches']}", 8, ha="left", color=FAINT)
    if encoder.get("features") is not None:
        sheet.picture(209, 264, 108, encoder["features"], sharp=True)
    else:
        sheet.box(209, 264, 108, 108, "features", f"{encoder['patches']} patches", kind="image")
    sheet.text(
        263,
        252,
        features + (", as colours" if encoder.get("features") is not None else ""),
        8,
        color=FAINT,
    )
    sheet.arrow((209, 318), (160, 318))
    sheet.box(32, 294, 128, 48, "standardise", "by channel, add place")
    sheet.arrow((96, 294), (96, 198))
    sheet.arrow((96, 226), (263, 226), (263, 198))
    keys = (f"{model['layers']} × 2 × {shapes['keys']}", short(counts["keys"]) + ", in the blocks")
    sheet.box(178, 122, 172, 76, "keys and values", *keys, kind="cross")
    sheet.box(
        32,
        122,
        128,
        76,
        "length head",
        "from all patches",
        shapes["length"],
        short(counts["length"]),
        kind="head",
    )
    if not model["causal"]:
        sheet.arrow((96, 122), (96, 67), (402, 67), color=PALETTE["head"][1])
        sheet.text(232, 77, "L: how many masks", 8.2, color=PALETTE["head"][1])


def block(
    path: Path, model: dict, parts: list[dict], tables: list[tuple[tuple[int, ...], list[tuple]]]
) -> list[Path]:
    """One block along the residual stream, and tables of words below it, side by side where there is room.

    parts: of each kind, title, note, count and weights {name: shape}. tables: right edges of the columns, and rows.
    """
    wide, rows = len(parts) > 2, [len(table) for _, table in tables]
    tall, below = (50, 15 * (max(rows) if wide else sum(rows) + 1) + 58) if tables else (36, 34)
    width, height = 48 + 284 * len(parts), 290 + 4 * tall + below
    sheet, stream = Sheet(width, height), height - 84
    sheet.text(16, height - 23, f"One block of {model['layers']}", 13, ha="left", weight="bold")
    sheet.text(
        width - 16,
        height - 23,
        f"{model['counts']['block']:,} parameters",
        8.8,
        ha="right",
        color=FAINT,
    )
    for x, side in ((14, "left"), (width - 14, "right")):
        sheet.text(x, stream + 18, "x  " + model["shapes"]["blocks.0"], 8.6, ha=side)
    sheet.text(width / 2, stream + 18, "residual stream", 8.6, color=FAINT, style="italic")
    sheet.arrow((12, stream), (width - 6, stream), width=2.4)
    for i, part in enumerate(parts):
        part_of_block(sheet, 26 + 284 * i, stream, tall, model, part)
    left, y = 30.0, below - 24.0
    for edges, table in tables:
        for row, cells in enumerate(table):
            for j, words in enumerate(cells):
                place = {
                    "ha": "right" if j else "left",
                    "weight": "bold" if row in (0, len(table) - 1) else "normal",
                }
                sheet.text(
                    left + (edges[j - 1] if j else 0), y - 15 * row, str(words), 7.9, **place
                )
        left, y = (width * 0.56, y) if wide else (left, y - 15 * (len(table) + 1))
    sheet.text(width / 2, 14, LEGEND, 8.2, color=FAINT, within=width - 30)
    return sheet.save(path)


def part_of_block(
    sheet: Sheet, left: float, stream: float, tall: float, model: dict, part: dict
) -> None:
    """One branch off the residual stream, from the norm at the top to the sum with the stream at its right end."""
    kind, weights, head = part["kind"], part["weights"], model["width"] // model["heads"]
    colour, x = PALETTE[kind][1], left + 14
    slots = (
        [x, x + 76, x + 152] if kind != "mlp" else [x, x + 115] if "gate.weight" in weights else [x]
    )
    wide = {3: 66, 2: 103, 1: 218}[len(slots)]
    centre = [slot + wide / 2 for slot in slots]
    shape = lambda name: (
        " × ".join(map(str, weights[name])) if tall > 36 and len(weights[name]) > 1 else ""
    )
    size = lambda name: short(math.prod(weights[name]))
    box = lambda x, y, wide, title, name, after="": sheet.box(
        x, y, wide, tall, title, shape(name), size(name) + after, size=8.7
    )
    norm = stream - 26 - 16 - tall
    project, turn = norm - 24 - tall, norm - 24 - tall - 18 - tall
    core, out = turn - 20 - 46, turn - 20 - 46 - 18 - tall
    sheet.frame(
        left,
        out - 36,
        246,
        norm + tall + 14 - out + 36,
        kind,
        radius=10,
        facecolor=PALETTE[kind][0] + "80",
        linewidth=0.9,
    )
    sheet.text(left + 14, out - 19, part["title"], 9.6, ha="left", weight="bold", color=colour)
    sheet.text(left + 232, out - 19, f"{part['count']:,}", 8.6, ha="right", color=colour)

    branch = centre[0] if kind == "cross" else x + 109
    sheet.arrow((branch, stream), (branch, norm + tall), color=colour)
    box(x, norm, wide if kind == "cross" else 218, "RMSNorm", "norm")
    if kind == "cross":
        sheet.box(
            x + 76,
            norm,
            142,
            tall,
            "image",
            f"(B, P, {weights['key.weight'][1]})",
            kind="image",
            size=8.7,
        )
    names = (
        ("query", "key", "value")
        if kind != "mlp"
        else ("gate", "up")
        if len(slots) == 2
        else ("up",)
    )
    for middle, slot, name in zip(centre, slots, names, strict=True):
        sheet.arrow((middle, norm), (middle, project + tall), color=colour)
        box(slot, project, wide, name, f"{name}.weight")
    if kind == "mlp":
        sheet.arrow((centre[0], project), (centre[0], turn + tall), color=colour)
        sheet.box(
            slots[0],
            turn,
            wide,
            tall,
            "SiLU" if len(slots) == 2 else "GELU",
            f"(B, L, {weights['up.weight'][0]})",
            size=8.7,
        )
        if len(slots) == 2:
            for end, y in ((centre[0], turn), (centre[1], project)):
                sheet.arrow(
                    (end, y),
                    (end, core + 23),
                    (x + 109 + (-9 if end < x + 109 else 9), core + 23),
                    color=colour,
                )
            sheet.sign(x + 109, core + 23, "×", colour)
        sheet.arrow(
            (x + 109, core + 15 if len(slots) == 2 else turn), (x + 109, out + tall), color=colour
        )
        box(x, out, 218, "down", "down.weight")
    else:
        for j, name in enumerate(("query", "key")):
            sheet.arrow((centre[j], project), (centre[j], turn + tall), color=colour)
            box(
                slots[j],
                turn,
                wide,
                "norm",
                f"{name}_norm.weight",
                after=", rotary" if kind == "attention" else "",
            )
            sheet.arrow((centre[j], turn), (centre[j], core + 46), color=colour)
        sheet.arrow((centre[2], project), (centre[2], core + 46), color=colour)
        sheet.frame(x, core, 218, 46, "plain")
        tex = rf"$\mathrm{{softmax}}(q\,k^{{\mathsf{{T}}}}/\sqrt{{{head}}}\,)\;v$"
        sheet.formula(x + 109 - formula_width(tex, 10.5) / 2, core + 25, tex, 10.5)
        sheet.text(x + 109, core + 11, part["note"], 7.8, color=FAINT, within=208)
        sheet.arrow((x + 109, core), (x + 109, out + tall), color=colour)
        box(x, out, 218 if kind == "attention" else 142, "out", "out.weight")
        if kind == "cross":
            box(x + 160, out, 58, "× gate", "gate")
            sheet.arrow((x + 142, out + tall / 2), (x + 160, out + tall / 2), color=colour)
    right = left + 260
    sheet.arrow(
        (x + 218, out + tall / 2), (right, out + tall / 2), (right, stream - 8), color=colour
    )
    sheet.sign(right, stream, "+", colour)


def process(
    path: Path,
    words: list[str],
    masked: list[list[str]],
    written: list[list[str]],
    conditioned: bool,
) -> list[Path]:
    """Masking beside writing, both from clean (t = 0) at the top to all masked (t = 1) at the bottom, and the loss below.

    masked: the caption at rising noise, "" where a mask is; written: the frames of a sampler, from all masks to none.
    """
    sheet, n, step = Sheet(900, 480), len(words), 46
    for left, title, words_below in (
        (14, "training: mask", "exactly k of n tokens, k uniform on 1 … n; every mask drawn anew"),
        (494, "writing: reveal", "from the bottom up; orange is what this call drew"),
    ):
        sheet.frame(left, 168, 392, 298, "panel", radius=10)
        sheet.text(left + 16, 445, title, 10.5, ha="left", weight="bold")
        sheet.text(left + 16, 426, words_below, 8.2, within=360, ha="left", color=FAINT)
    for row, (one, two) in enumerate(zip(masked, written[::-1], strict=True)):
        y, k = 376 - step * row, one.count("")
        sheet.tokens(30, y, words, states_of(one), 360, height=26)
        before = written[::-1][row + 1] if row + 1 < len(written) else None
        sheet.tokens(510, y, words, states_of(two, before), 360, height=26)
        level = {0: "t = 0", n: "t = 1"}.get(k, f"t = {k / n:g}")
        sheet.text(450, y + 19, level, 8.4, weight="bold")
        sheet.text(450, y + 6, f"k = {k}", 8, color=FAINT)
    sheet.arrow((414, 402), (414, 192), width=1.6)
    sheet.arrow((486, 192), (486, 402), width=1.6, color=PALETTE["new"][1])

    given = r",\,\mathrm{image}" if conditioned else ""
    nats = rf"{{-}}\log p_\theta(x_i\,|\,x_{{\backslash S}}{given})"
    whole = r"x\,|\,\mathrm{image}" if conditioned else "x"
    every = (
        rf"\sum_{{k=1}}^{{n}}\;\mathrm{{E}}_{{|S|=k}}\,\dfrac{{1}}{{k}}\;\sum_{{i\in S}}\;{nats}"
    )
    pieces = [
        (
            rf"$-\log p_\theta({whole})$",
            "nats of the " + ("caption" if conditioned else "text"),
            INK,
        ),
        (r"$\leq$", "", INK),
        (f"${every}$", "the bound, the same for every schedule", INK),
        (r"$=$", "", INK),
        (
            rf"$\mathrm{{E}}_{{k,\,S}}\;\dfrac{{n}}{{k}}\;\sum_{{i\in S}}\;{nats}$",
            "one draw a row: k, then S of exactly k tokens",
            "#9a3412",
        ),
    ]
    sheet.frame(14, 40, 872, 112, radius=10, edgecolor="#dee2e6")
    widths = [formula_width(tex, 12.5) for tex, _, _ in pieces]
    x = 450 - (sum(widths) + 16 * (len(pieces) - 1)) / 2
    for (tex, meaning, colour), wide in zip(pieces, widths, strict=True):
        sheet.formula(x, 98, tex, 12.5, colour)
        sheet.text(x + wide / 2, 55, meaning, 8.4, color=FAINT)
        x += wide + 16
    sheet.text(
        450,
        18,
        "n tokens that may be masked  ·  S the masked ones  ·  the network sees both sides of every mask",
        8.4,
        color=FAINT,
    )
    return sheet.save(path)
