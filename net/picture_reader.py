"""The independent reader: a network that sees a picture of shapes and says which scene it shows.

It is trained on true pictures only, and it shares nothing with the models that it judges. As in
CenterNet (arXiv 1904.07850), each object is a peak of a heat map, and what stands at the peak
describes it.

A scene may show a small object in a large object, often at the same place. So each size has a heat
map of its own, and answers of its own: fill, colour, shape, offset of the centre, radius.

Shapes: B pictures, S side in pixels, G = S / 4 side of the maps, Z = 3 sizes, A answers, N objects
of all pictures of a batch.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base import flags
from base.errors import UserError
from base.flags import setting
from net.picture_codes import ChannelNorm, Residual, doubling, halving
from worlds.scenes import CLASSES, RADIUS, SIZES, Object, Scene

STRIDE = 4  # pixels of a place of the maps
# What is classified at a peak; the size says which map the peak is on.
NAMED = {name: words for name, words in CLASSES.items() if name != "size"}
ANSWERS = 1 + sum(map(len, NAMED.values())) + 3  # the heat, the classes, x, y and radius
RARE = 0.02  # the heat before training: most places are no centre
WIDEST = 0.25  # the standard deviation of a target's peak, as a share of the radius
SHARPEST = 0.7  # and at least this many places
MOST = 7  # objects of a scene that is read; scenes have at most 5
# Two peaks nearer than this share of their radii are the same object, unless small lies in large.
SAME = 0.5
LARGEST_RADIUS = RADIUS["large"][1]


@dataclass
class ReaderConfig:
    """The reader: sizes of the network, and what counts as a peak."""

    side: int = setting(
        96, "side of a picture in pixels, a multiple of 8", at_least=16, at_most=512
    )
    width: int = setting(
        128, "channels at an eighth of the side; half of it at a quarter", at_least=16, at_most=1024
    )
    blocks: int = setting(2, "residual blocks at an eighth of the side", at_least=1, at_most=32)
    threshold: float = setting(0.3, "heat from which a peak is an object", above=0, below=1)

    def __post_init__(self):
        flags.check(self)
        if self.side % 8 or self.width % 4:
            found = f"--side {self.side} --width {self.width}"
            raise UserError(found, "multiples of 8 and of 4", "choose other sizes")

    @property
    def grid(self) -> int:
        """Places on a side of the maps."""
        return self.side // STRIDE


@dataclass
class Answers:
    """The maps of a batch. heat: (B, Z, G, G) logits. classes: {name: (B, Z, C, G, G) logits}.

    place: (B, Z, 3, G, G), the centre's x and y inside its place of the map, 0 to 1, and the radius
    as a share of LARGEST_RADIUS.
    """

    heat: Tensor
    classes: dict[str, Tensor]
    place: Tensor


@dataclass
class Targets:
    """What the maps should say. heat: (B, Z, G, G), 1 at centres, falling off around them.

    where: four (N,) int64, the picture, size, row and column of each object. classes: {name: (N,)
    int64}. place: (N, 3), as in Answers.
    """

    heat: Tensor
    where: tuple[Tensor, ...]
    classes: dict[str, Tensor]
    place: Tensor


def targets(scenes: list[Scene], grid: int) -> Targets:
    """The targets of these scenes for maps of grid × grid places."""
    heat = torch.zeros(len(scenes), len(SIZES), grid, grid)
    where: list[tuple[int, int, int, int]] = []
    classes: dict[str, list[int]] = {name: [] for name in NAMED}
    places = []
    steps = torch.arange(grid)
    for number, scene in enumerate(scenes):
        for thing in scene.objects:
            size, x, y = SIZES.index(thing.size), thing.x * grid, thing.y * grid
            column, row = min(int(x), grid - 1), min(int(y), grid - 1)
            sigma = max(SHARPEST, WIDEST * thing.radius * grid)
            square = (steps[:, None] - row).square() + (steps[None] - column).square()
            peak = torch.exp(-square / (2 * sigma**2))
            heat[number, size] = torch.maximum(heat[number, size], peak)
            where.append((number, size, row, column))
            for name, words in NAMED.items():
                classes[name].append(words.index(getattr(thing, name)))
            places.append((x - column, y - row, thing.radius / LARGEST_RADIUS))
    return Targets(
        heat,
        tuple(torch.tensor(where, dtype=torch.long).reshape(-1, 4).unbind(1)),
        {name: torch.tensor(numbers, dtype=torch.long) for name, numbers in classes.items()},
        torch.tensor(places).reshape(-1, 3),
    )


class PictureReader(nn.Module):
    """Pixels to maps (`forward`), and to scenes (`read`)."""

    def __init__(self, config: ReaderConfig):
        super().__init__()
        self.config = config
        wide, middle, narrow = config.width, config.width // 2, config.width // 4
        self.fine = nn.Sequential(  # at a quarter of the side: where
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, narrow, 3, padding=1),
            nn.SiLU(),
            halving(narrow, middle),
            Residual(middle),
        )
        self.coarse = nn.Sequential(  # at an eighth, where a large object fits into view: what
            halving(middle, wide),
            *(Residual(wide) for _ in range(config.blocks)),
            doubling(wide, middle),
        )
        self.both = Residual(middle)
        self.answers = nn.Sequential(ChannelNorm(middle), nn.Conv2d(middle, 3 * ANSWERS, 1))
        bias = self.answers[1].bias
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias.view(3, ANSWERS)[:, 0].detach(), math.log(RARE / (1 - RARE)))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.parameters())

    def forward(self, pixels: Tensor) -> Answers:
        """Pixels (B, 3, S, S) in [0, 1] -> the maps."""
        fine = self.fine(pixels - 0.5)
        answers = self.answers(self.both(fine + self.coarse(fine)))  # (B, Z · A, G, G)
        answers = answers.unflatten(1, (len(SIZES), ANSWERS))
        sizes = [1, *map(len, NAMED.values()), 3]
        heat, *classes, place = answers.split(sizes, 2)
        return Answers(heat[:, :, 0], dict(zip(NAMED, classes, strict=True)), place)

    @torch.no_grad()
    def read(self, pixels: Tensor) -> list[Scene]:
        """Pixels (B, 3, S, S) in [0, 1] -> the scene that each picture shows."""
        return scenes_of(self(pixels), self.config.threshold)


# ---- From maps to scenes


def scenes_of(answers: Answers, threshold: float) -> list[Scene]:
    """The scenes that maps describe: their peaks of at least `threshold`, the largest first.

    A peak is a place whose heat no neighbour exceeds. At most MOST objects: of more, the hottest.
    """
    heat = answers.heat.float().sigmoid()
    is_peak = (F.max_pool2d(heat, 3, stride=1, padding=1) == heat) & (heat >= threshold)
    where = is_peak.nonzero()
    grid = heat.shape[-1]
    found: list[list[tuple[float, Object]]] = [[] for _ in range(len(heat))]
    for picture, size, row, column in where.tolist():
        best = {}
        for name, logits in answers.classes.items():
            best[name] = NAMED[name][int(logits[picture, size, :, row, column].argmax())]
        x, y, radius = answers.place[picture, size, :, row, column].tolist()
        thing = Object(
            shape=best["shape"],
            colour=best["colour"],
            size=SIZES[size],
            fill=best["fill"],
            x=(column + x) / grid,
            y=(row + y) / grid,
            radius=radius * LARGEST_RADIUS,
        )
        found[picture].append((float(heat[picture, size, row, column]), thing))
    return [Scene(chosen(peaks)) for peaks in found]


def chosen(peaks: list[tuple[float, Object]]) -> list[Object]:
    """The objects of a picture, from the hottest peak on, none of them twice; the largest first."""
    kept: list[Object] = []
    for _, thing in sorted(peaks, key=heat_of, reverse=True):
        if len(kept) < MOST and not any(are_same(thing, other) for other in kept):
            kept.append(thing)
    return sorted(kept, key=radius_of, reverse=True)


def heat_of(peak: tuple[float, Object]) -> float:
    return peak[0]


def radius_of(thing: Object) -> float:
    return thing.radius


def are_same(first: Object, second: Object) -> bool:
    """Whether two peaks must be the same object, because objects are never so close."""
    if {first.size, second.size} == {"small", "large"}:
        return False
    distance = math.hypot(first.x - second.x, first.y - second.y)
    return distance < SAME * (first.radius + second.radius)


# ---- The loss


def reading_loss(answers: Answers, wanted: Targets) -> dict[str, Tensor]:
    """The losses by name, to be added, each a mean over the objects of the batch.

    heat: the focal loss of CenterNet, equation 1, with alpha 2 and beta 4. fill, colour, shape:
    nats at the true centres. place: L1 of offset and radius there.
    """
    count = max(1, len(wanted.place))
    logits, aim = answers.heat.float(), wanted.heat
    belief = logits.sigmoid()
    hit = (1 - belief).square() * F.logsigmoid(logits)
    miss = (1 - aim).pow(4) * belief.square() * F.logsigmoid(-logits)
    losses = {"heat": -torch.where(aim == 1, hit, miss).sum() / count}
    picture, size, row, column = wanted.where
    for name, maps in answers.classes.items():
        there = maps[picture, size, :, row, column].float()  # (N, C)
        losses[name] = F.cross_entropy(there, wanted.classes[name], reduction="sum") / count
    place = answers.place[picture, size, :, row, column].float()  # (N, 3)
    losses["place"] = (place - wanted.place).abs().sum() / count
    return losses
