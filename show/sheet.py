"""A sheet to draw diagrams on: boxes, arrows, tokens, texts and formulas, saved as PNG and SVG.

Lengths are in hundredths of an inch from the lower left corner, so a sheet 900 wide is read at 900
pixels; y grows upwards. matplotlib is imported when something is drawn.
"""

import functools
import io
from pathlib import Path

from base import files

INK, FAINT, LINE = "#212529", "#5c656d", "#495057"
MASK_INK, NEW_INK = "#ced4da", "#9a3412"
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
DPI = 200
POINTS_PER_UNIT = 0.72  # a point is 1/72 inch, a unit of the sheet 1/100 inch
FONT = "DejaVu Sans"  # comes with matplotlib, so widths are the same on every machine

Point = tuple[float, float]


@functools.cache
def width_of(words: str, size: float, weight: str = "normal", family: str = FONT) -> float:
    """How wide a text of `size` points is."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not words.strip():
        return 0.0
    # From the outlines of the letters: the layout is known before anything is drawn.
    font = FontProperties(family=family, weight=weight)
    return TextPath((0, 0), words, size, prop=font).get_extents().width / POINTS_PER_UNIT


@functools.cache
def formula_width(tex: str, size: float) -> float:
    """How wide a formula of `size` points is."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    font = FontProperties(size=size, math_fontfamily="cm")
    return MathTextParser("path").parse(tex, dpi=100, prop=font).width


def towards(start: Point, end: Point, distance: float) -> Point:
    """The point `distance` from `start` towards `end`, along the axes."""
    x, y = (
        here + distance * ((there > here) - (there < here))
        for here, there in zip(start, end, strict=True)
    )
    return x, y


def corner_radius(before: Point, corner: Point, after: Point) -> float:
    """7 units, or half of the shorter of the two lines that meet at the corner."""
    lengths = []
    for other in (before, after):
        lengths.append(max(abs(a - b) for a, b in zip(corner, other, strict=True)))
    return min(7.0, lengths[0] / 2, lengths[1] / 2)


class Sheet:
    """A white page of width × height to draw on."""

    def __init__(self, width: float, height: float):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        self.width, self.height = width, height
        self.figure = plt.figure(figsize=(width / 100, height / 100), facecolor="white")
        # The axes fill the page, so that one unit is 1/100 inch everywhere.
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.axis("off")

    # --- words ---------------------------------------------------------------------------------

    def text(
        self, x: float, y: float, words: str, size: float = 8.4, within: float = 0.0, **style
    ) -> None:
        """Words around (x, y), made smaller until they are no wider than `within`."""
        style = {
            "ha": "center",
            "va": "center_baseline",
            "color": INK,
            "family": FONT,
            "parse_math": False,  # a caption may hold a "$"
            **style,
        }
        if within:
            weight = style.get("weight", "normal")
            lines = words.split("\n")
            widest = max(width_of(line, size, weight, style["family"]) for line in lines)
            size *= min(1.0, within / max(widest, 1.0))  # 1.0: blank words have no width
        self.axes.text(x, y, words, fontsize=size, zorder=5, **style)

    def formula(self, x: float, y: float, tex: str, size: float, color: str = INK) -> None:
        """Mathtext from x on, its baseline at y.

        In the SVG it is outlines, because TeX's fonts are not on every machine.
        """
        import matplotlib

        drawn = self.axes.text(
            x, y, tex, fontsize=size, color=color, zorder=5, math_fontfamily="cm", va="baseline"
        )
        as_text = drawn.draw

        def as_outlines(renderer):
            with matplotlib.rc_context({"svg.fonttype": "path"}):
                as_text(renderer)

        drawn.draw = as_outlines

    # --- boxes ---------------------------------------------------------------------------------

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
        shape = f"round,pad=0,rounding_size={radius}"
        self.axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, **style))

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
        shown = [note for note in notes if note]
        middle, room = x + width / 2, width - 7
        level = y + height / 2 + len(shown) * 7.2
        self.text(middle, level, title, size, within=room, weight="bold", color=INK)
        for number, note in enumerate(shown, 1):
            level = y + height / 2 + (len(shown) - 2 * number) * 7.2
            self.text(middle, level, note, size - 1.1, within=room, weight="normal", color=FAINT)

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

    def picture(self, x: float, y: float, side: float, pixels, sharp: bool = False) -> None:
        """Pixels (height, width, 3) in a square with rounded corners. sharp: show each pixel."""
        from matplotlib.patches import FancyBboxPatch

        drawn = self.axes.imshow(
            pixels,
            extent=(x, x + side, y, y + side),
            aspect="auto",
            zorder=2,
            interpolation="nearest" if sharp else "antialiased",
            origin="upper",
        )
        shape = "round,pad=0,rounding_size=5"
        clip = FancyBboxPatch((x, y), side, side, boxstyle=shape, transform=self.axes.transData)
        drawn.set_clip_path(clip)
        self.axes.set(xlim=(0, self.width), ylim=(0, self.height))  # imshow has changed them
        edge = {"facecolor": "none", "edgecolor": "#868e96", "zorder": 3}
        self.frame(x, y, side, side, "plain", radius=5, **edge)

    def tokens(
        self,
        x: float,
        y: float,
        words: list[str],
        states: list[str],
        room: float,
        height: float = 22,
    ) -> None:
        """A row of tokens that fills `room`. states: known, new, mask, later.

        Each token gets the width of its word and the same share of what is left.
        """
        gap = 4
        # Shorter words get the width of the sign [M].
        natural = [max(22.0, width_of(word, 8.4) + 11) for word in words]
        spare = (room - sum(natural) - gap * (len(words) - 1)) / len(words)
        for word, needed, state in zip(words, natural, states, strict=True):
            width = needed + spare
            style = {"linestyle": (0, (3, 2))} if state == "later" else {}
            self.frame(x, y, width, height, state, radius=4.5, **style)
            middle, level = x + width / 2, y + height / 2
            if state == "mask":
                self.text(middle, level, "[M]", 7.6, color=MASK_INK)
            elif state in ("known", "new"):
                colour = NEW_INK if state == "new" else INK
                self.text(middle, level, word, 8.4, within=width - 5, color=colour)
            x += width + gap

    # --- lines ---------------------------------------------------------------------------------

    def arrow(
        self,
        *points: Point,
        dashed: bool = False,
        head: bool = True,
        color: str = LINE,
        width: float = 1.3,
    ) -> None:
        """A line through the points with rounded corners and, at the last, a head."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path as Curve

        if dashed and head:  # a head of its own, because matplotlib would dash its outline
            neck = towards(points[-1], points[-2], 9)
            self.arrow(*points[:-1], neck, dashed=True, head=False, color=color, width=width)
            self.arrow(neck, points[-1], color=color, width=width)
            return
        vertices, codes = [points[0]], [Curve.MOVETO]
        for before, corner, after in zip(points[:-2], points[1:-1], points[2:], strict=True):
            radius = corner_radius(before, corner, after)
            vertices += [towards(corner, before, radius), corner, towards(corner, after, radius)]
            codes += [Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
        self.axes.add_patch(
            FancyArrowPatch(
                path=Curve([*vertices, points[-1]], [*codes, Curve.LINETO]),
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

        style = {"facecolor": "white", "edgecolor": color, "linewidth": 1.3, "zorder": 4}
        self.axes.add_patch(Circle((x, y), 8, **style))
        strokes = ((5, 0), (0, 5)) if words == "+" else ((3.4, 3.4), (3.4, -3.4))
        for dx, dy in strokes:
            self.axes.plot([x - dx, x + dx], [y - dy, y + dy], color=color, linewidth=1.3, zorder=5)

    # --- files ---------------------------------------------------------------------------------

    def save(self, path: Path) -> list[Path]:
        """Write path.png and path.svg, each whole or not at all. Text in the SVG is text."""
        import matplotlib
        from matplotlib import pyplot as plt
        from PIL import Image

        png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", facecolor="white", dpi=DPI)
        # 256 colours are enough for flat boxes, and take a third of the bytes.
        image = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        with files.replacing(png) as file:
            image.save(file, "PNG", optimize=True)
        # The salt and the missing date make the same drawing the same bytes.
        settings = {"svg.fonttype": "none", "svg.hashsalt": path.name}
        with matplotlib.rc_context(settings), files.replacing(svg) as file:
            self.figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
        plt.close(self.figure)
        return [png, svg]
