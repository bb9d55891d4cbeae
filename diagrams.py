"""Boxes and arrows on a white sheet, as PNG and SVG (floor 0: matplotlib, imported when something is drawn).

Coordinates are in hundredths of an inch from the lower left corner, so that what is written here is what is seen.
"""

from dataclasses import dataclass, field
from pathlib import Path

import files

INK = "#1f2933"
PALETTE = {"frozen": ("#e3eefb", "#5b8fc9"), "text": ("#eef6e6", "#7aa650"), "attention": ("#fdf0dc", "#d99a2b"), "cross": ("#fbe5e9", "#cf5d75"),
           "mlp": ("#ece8f8", "#8069b8"), "plain": ("#f4f5f7", "#9aa5b1"), "mask": ("#3e4c59", "#3e4c59")}


@dataclass
class Sheet:
    """A page of width × height hundredths of an inch to draw on."""

    width: float
    height: float
    figure: object = None
    axes: object = None
    words: list[str] = field(default_factory=list)

    def __post_init__(self):
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
        self.figure = plt.figure(figsize=(self.width / 100, self.height / 100), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, self.width), ylim=(0, self.height))
        self.axes.axis("off")

    def text(self, x: float, y: float, words: str, size: float = 9, **style) -> None:
        self.axes.text(x, y, words, fontsize=size, **{"ha": "center", "va": "center", "color": INK, **style})

    def box(self, x: float, y: float, width: float, height: float, title: str, notes: str = "", kind: str = "plain", size: float = 9.5) -> None:
        """A rounded box whose lower left corner is (x, y): a bold title, and smaller notes below it."""
        from matplotlib.patches import FancyBboxPatch
        fill, edge = PALETTE[kind]
        self.axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=7", facecolor=fill, edgecolor=edge))
        colour = "white" if kind == "mask" else INK
        lines = notes.count("\n") + 1 if notes else 0
        shift = 6.2 * lines
        self.text(x + width / 2, y + height / 2 + shift, title, size, weight="bold", color=colour)
        if notes:
            self.text(x + width / 2, y + height / 2 - 8.5, notes, size - 1.8, color=colour, linespacing=1.35)

    def arrow(self, *points: tuple[float, float], words: str = "", dashed: bool = False, at: tuple[float, float] | None = None) -> None:
        """A line through the points with a head at the last; words stand at `at`, or above the middle of the first leg."""
        for start, end in zip(points[:-2], points[1:-1], strict=True):
            self.axes.plot(*zip(start, end, strict=True), color=INK, linewidth=1.2, linestyle="--" if dashed else "-", solid_capstyle="round")
        self.axes.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0,
                                                                  "linestyle": "--" if dashed else "-"})
        if words:
            (x0, y0), (x1, y1) = points[:2]
            x, y = at or ((x0 + x1) / 2, (y0 + y1) / 2 + 9)
            self.text(x, y, words, 7.7)

    def plus(self, x: float, y: float) -> None:
        """The sum of a residual connection."""
        from matplotlib.patches import Circle
        self.axes.add_patch(Circle((x, y), 8, facecolor="white", edgecolor=INK, linewidth=1.2, zorder=3))
        self.text(x, y - 0.5, "+", 11, zorder=4)

    def tokens(self, x: float, y: float, words: list[str], width: float, fresh: tuple[int, ...] = (), height: float = 22) -> None:
        """A row of tokens from left to right; "" is a mask, `fresh` are those revealed just now."""
        from matplotlib.patches import FancyBboxPatch
        for i, word in enumerate(words):
            fill, edge = PALETTE["attention" if i in fresh else "text" if word else "mask"]
            self.axes.add_patch(FancyBboxPatch((x + i * width + 2, y), width - 4, height, boxstyle="round,pad=0,rounding_size=4", facecolor=fill,
                                               edgecolor=edge, linewidth=1.0))
            self.text(x + (i + 0.5) * width, y + height / 2, word or "mask", 8.3, color="white" if not word else INK)

    def save(self, path: Path) -> list[Path]:
        """path.png and path.svg, whole or not at all. Text in the SVG is text."""
        import matplotlib
        from matplotlib import pyplot as plt
        written = []
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
            for kind, options in (("png", {"dpi": 160}), ("svg", {"metadata": {"Date": None}})):
                with files.replacing(path.with_suffix(f".{kind}")) as file:
                    self.figure.savefig(file, format=kind, facecolor="white", **options)
                written.append(path.with_suffix(f".{kind}"))
        plt.close(self.figure)
        return written
