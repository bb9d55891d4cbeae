"""Synthetic scenes: sample them, draw them, and hold some of them out (floor 0: numpy and Pillow).

A scene is one to five coloured shapes on a background; its graph is known, so a caption about it is true or false.
Everything is a function of the generator passed in: same seed, same scene, same pixels.
Positions and radii are in units of the image's side; x grows to the right, y grows downwards.

    level 1   one object
    level 2   two objects with a clear relation: left of, right of, above, below, inside
    level 3   three objects (more in the split `long`), often in groups: three small red circles
    noise 0   a plain background    1  gradients, uneven light    2  texture, blur, sensor noise, JPEG    3  more of all, colour casts
"""

import dataclasses
import io
import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIDE = 224
SHAPES = ("circle", "square", "triangle", "rectangle", "star", "cross", "semicircle", "heart")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white")
SIZES = ("small", "medium", "large")
FILLS = ("solid", "outlined", "striped", "dotted")
PATTERNS = ("striped", "dotted")  # not on small objects, where three pixels are no pattern
RELATIONS = ("left of", "right of", "above", "below", "inside")
INSIDE = 0.15  # of the draws of two objects; an eighth of what is kept
CLASSES = {"size": SIZES, "fill": FILLS, "colour": COLOURS, "shape": SHAPES}
ATTRIBUTES = tuple(CLASSES)

# Hue in degrees with its jitter, saturation, value: the classes keep clear of each other and of the greyish backgrounds.
HSV = {
    "red": (0, 7, 0.90, 0.84),
    "orange": (28, 5, 0.95, 0.97),
    "yellow": (55, 4, 0.90, 0.97),
    "green": (128, 16, 0.80, 0.58),
    "blue": (222, 10, 0.85, 0.80),
    "purple": (278, 8, 0.75, 0.62),
    "pink": (332, 7, 0.42, 1.00),
    "black": (0, 180, 0.20, 0.07),
    "white": (0, 180, 0.02, 0.99),
}
RADIUS = {
    "small": (0.070, 0.085),
    "medium": (0.120, 0.138),
    "large": (0.195, 0.225),
}  # circumscribed circle
INRADIUS = {
    "circle": 1.0,
    "square": 0.70,
    "rectangle": 0.45,
    "triangle": 0.50,
    "heart": 0.55,
}  # of the shapes that can hold another


def held_pair(colour: str, shape: str) -> bool:
    """The Latin-square fifth of colour × shape that training never sees; every colour and shape is seen with others."""
    return (COLOURS.index(colour) + 2 * SHAPES.index(shape)) % 5 == 0


def held_relation(first: str, relation: str, second: str) -> bool:
    """The fifth of shape × relation × shape that training never sees, from either object's point of view."""
    if relation in ("right of", "below"):
        first, relation, second = second, {"right of": "left of", "below": "above"}[relation], first
    return (SHAPES.index(first) + 2 * SHAPES.index(second) + RELATIONS.index(relation)) % 5 == 0


def held_count(number: int, shape: str) -> bool:
    """The fifth of number × shape that training never sees, for groups of two or more alike."""
    return number >= 2 and (2 * number + SHAPES.index(shape)) % 5 == 0


@dataclass
class Object:
    """One shape. x, y: centre; radius: of the circumscribed circle; angle in degrees."""

    shape: str
    colour: str
    size: str
    fill: str
    x: float = 0.5
    y: float = 0.5
    radius: float = 0.1
    angle: float = 0.0

    def kind(self) -> tuple[str, str, str, str]:
        return self.size, self.fill, self.colour, self.shape


@dataclass
class Scene:
    """Objects in drawing order, the noise level, and the seed of everything random in the picture."""

    objects: list[Object] = field(default_factory=list)
    noise: int = 0
    seed: int = 0

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def scene_from_dict(values: dict) -> Scene:
    return Scene([Object(**one) for one in values["objects"]], values["noise"], values["seed"])


def relation(first: Object, second: Object) -> str | None:
    """The one clear relation of `first` to `second`, or None: inside, or the direction in which it is clearly farther away."""
    dx, dy = first.x - second.x, first.y - second.y
    if math.hypot(dx, dy) < second.radius - 0.5 * first.radius and first.radius < second.radius:
        return "inside"
    if max(abs(dx), abs(dy)) < 0.12 or max(abs(dx), abs(dy)) < 1.4 * min(abs(dx), abs(dy)):
        return None
    return (
        ("right of" if dx > 0 else "left of")
        if abs(dx) > abs(dy)
        else ("below" if dy > 0 else "above")
    )


def pick(rng: np.random.Generator, values):
    return values[int(rng.integers(len(values)))]


def sample_kind(rng: np.random.Generator, pairs: str) -> Object:
    """An object without a place. pairs: "seen" keeps held-out colour-shape pairs away, "held" draws only them."""
    while True:
        one = Object(
            pick(rng, SHAPES),
            pick(rng, COLOURS),
            pick(rng, SIZES),
            pick(rng, FILLS),
            angle=float(rng.uniform(0, 360)),
        )
        if one.size == "small" and one.fill in PATTERNS:
            one.fill = "solid" if one.fill == "striped" else "outlined"
        if held_pair(one.colour, one.shape) == (pairs == "held"):
            one.radius = float(rng.uniform(*RADIUS[one.size]))
            return one


def free_place(rng: np.random.Generator, one: Object, others: list[Object]) -> bool:
    """Put `one` somewhere inside the picture where it covers little of the others; False after 60 tries."""
    margin = one.radius + 0.01
    for _ in range(60):
        one.x, one.y = (float(v) for v in rng.uniform(margin, 1 - margin, 2))
        if all(
            math.hypot(one.x - o.x, one.y - o.y) > 0.97 * (one.radius + o.radius) for o in others
        ):
            return True
    return False


def sample_one(rng, pairs: str) -> list[Object]:
    one = sample_kind(rng, pairs)
    free_place(rng, one, [])
    return [one]


def sample_two(rng, pairs: str, relations: str, inside: float = INSIDE) -> list[Object] | None:
    """Two objects that differ in colour and shape, with a clear relation; None if this draw gives none.

    inside: share of draws that put the first into the second, many of which find no room.
    """
    first, second = sample_kind(rng, pairs), sample_kind(rng, "seen")
    if first.colour == second.colour or first.shape == second.shape:
        return None
    if rng.random() < inside:
        second.size, first.size = "large", "small"
        first.fill = "outlined" if first.fill == "outlined" else "solid"
        second.radius, first.radius = (float(rng.uniform(*RADIUS[o.size])) for o in (second, first))
        room = INRADIUS.get(second.shape, 0.0) * second.radius - first.radius * 1.05
        if room < 0:
            return None
        free_place(rng, second, [])
        shift = rng.uniform(-0.5, 0.5, 2) * room
        first.x, first.y = float(second.x + shift[0]), float(second.y + shift[1])
    elif not (free_place(rng, second, []) and free_place(rng, first, [second])):
        return None
    found = relation(first, second)
    if found is None or held_relation(first.shape, found, second.shape) != (relations == "held"):
        return None
    return [second, first]


def sample_many(rng, pairs: str, counts: str, number: int) -> list[Object] | None:
    """`number` objects in groups of objects that are alike; no two groups share colour and shape."""
    left, groups = number, []
    while left:
        size = (
            int(rng.integers(1, min(left, 3) + 1))
            if counts != "held" or groups
            else int(rng.integers(2, min(left, 3) + 1))
        )
        groups.append(size)
        left -= size
    objects: list[Object] = []
    kinds: set[tuple[str, str]] = set()
    for number_alike in groups:
        like = sample_kind(rng, pairs if not objects else "seen")
        if (like.colour, like.shape) in kinds or (like.size == "large" and number > 3):
            return None
        kinds.add((like.colour, like.shape))
        for _ in range(number_alike):
            one = dataclasses.replace(
                like,
                angle=float(rng.uniform(0, 360)),
                radius=float(rng.uniform(*RADIUS[like.size])),
            )
            if not free_place(rng, one, objects):
                return None
            objects.append(one)
    held = any(
        held_count(sum(o.shape == shape for o in objects), shape)
        for shape in {o.shape for o in objects}
    )
    return objects if held == (counts == "held") else None


def sample_scene(
    rng: np.random.Generator,
    level: int,
    *,
    noise: int = 0,
    pairs: str = "seen",
    relations: str = "seen",
    counts: str = "seen",
    number: int = 3,
    inside: float = INSIDE,
) -> Scene:
    """A scene of this level and noise. pairs, relations, counts: "seen" as in training, or "held" for the test splits.

    inside: as in `sample_two`, for level 2. number: objects at level 3.
    The first-drawn group of a "held" scene has the held-out property; the rest is ordinary.
    """
    while True:
        objects = (
            sample_one(rng, pairs)
            if level == 1
            else sample_two(rng, pairs, relations, inside)
            if level == 2
            else sample_many(rng, pairs, counts, number)
        )
        if objects is not None:
            return Scene(objects, noise, int(rng.integers(2**31)))


def swapped(scene: Scene) -> Scene:
    """The scene of two objects with their colours exchanged: its captions use the same words in another order."""
    objects = [dataclasses.replace(one) for one in scene.objects]
    objects[0].colour, objects[1].colour = objects[1].colour, objects[0].colour
    return Scene(objects, scene.noise, scene.seed)


def outline(shape: str) -> np.ndarray:
    """The shape as a polygon inside the unit circle: (n, 2) float64, y downwards."""
    turn = lambda n, start=0.0: np.stack(
        [np.cos(a := start + np.arange(n) * 2 * math.pi / n), np.sin(a)], 1
    )
    if shape == "circle":
        return turn(72)
    if shape == "square":
        return turn(4, math.pi / 4)
    if shape == "triangle":
        return turn(3, -math.pi / 2)
    if shape == "rectangle":
        return np.array([[-1, -0.5], [1, -0.5], [1, 0.5], [-1, 0.5]]) / math.hypot(1, 0.5)
    if shape == "star":
        return turn(10, -math.pi / 2) * np.where(np.arange(10) % 2 == 0, 1.0, 0.42)[:, None]
    if shape == "cross":
        w = 0.34
        points = [
            (w, 1),
            (w, w),
            (1, w),
            (1, -w),
            (w, -w),
            (w, -1),
            (-w, -1),
            (-w, -w),
            (-1, -w),
            (-1, w),
            (-w, w),
            (-w, 1),
        ]
        return np.array(points) / math.hypot(1, w)
    if shape == "semicircle":
        angle = np.linspace(0, math.pi, 40)
        return np.stack([np.cos(angle), np.sin(angle) - 0.3], 1) / 1.05
    t = np.linspace(0, 2 * math.pi, 60, endpoint=False)  # heart
    return (
        np.stack(
            [
                16 * np.sin(t) ** 3,
                -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 2.5,
            ],
            1,
        )
        / 17.5
    )


def stencil(one: Object, side: int) -> tuple[Image.Image, int, int]:
    """Where the object has paint, anti-aliased (drawn at four times the size): a greyscale image and its top left corner."""
    scale = 4
    reach = math.ceil(one.radius * side) + 2
    left, top = round(one.x * side) - reach, round(one.y * side) - reach
    centre = np.array([one.x * side - left, one.y * side - top]) * scale
    turned = math.radians(one.angle)
    turn = np.array([[math.cos(turned), -math.sin(turned)], [math.sin(turned), math.cos(turned)]])
    points = outline(one.shape) @ turn.T * one.radius * side * scale + centre
    corners = [tuple(p) for p in points]
    size = 2 * reach * scale
    body = Image.new("L", (size, size))
    ImageDraw.Draw(body).polygon(corners, fill=255)
    if one.fill != "solid":
        paint = Image.new("L", (size, size))
        draw = ImageDraw.Draw(paint)
        pen = scale * max(3.0, 0.17 * one.radius * side)
        draw.line([*corners, corners[0], corners[1]], fill=255, width=round(2 * pen), joint="curve")
        step = scale * max(6.5, 0.30 * one.radius * side)
        if one.fill == "striped":
            for offset in np.arange(-size, size, step):
                ends = np.array([[offset, -size], [offset, size]]) @ turn.T + centre
                draw.line([tuple(p) for p in ends], fill=255, width=round(step * 0.45))
        elif one.fill == "dotted":
            for i in np.arange(-8, 9):
                for j in np.arange(-8, 9):
                    x, y = np.array([i + 0.5 * (j % 2), j * 0.87]) * step * 1.05 @ turn.T + centre
                    draw.ellipse(
                        [x - step * 0.3, y - step * 0.3, x + step * 0.3, y + step * 0.3], fill=255
                    )
        body = ImageChops.multiply(body, paint)
    return body.resize((2 * reach, 2 * reach), Image.Resampling.BOX), left, top


def rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Hue in degrees, the others in [0, 1] -> (3,) float64 in 0..255."""
    k = (np.array([5.0, 3.0, 1.0]) + hue / 60) % 6
    return 255 * (value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1))


def paint_of(colour: str, rng: np.random.Generator) -> np.ndarray:
    hue, jitter, saturation, value = HSV[colour]
    return rgb(
        (hue + rng.uniform(-jitter, jitter)) % 360,
        min(1, saturation * rng.uniform(0.94, 1.04)),
        min(1, value * rng.uniform(0.94, 1.03)),
    )


def smooth(rng: np.random.Generator, cells: int, side: int) -> np.ndarray:
    """Smooth noise in about [-1, 1]: (side, side)."""
    small = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def background(rng: np.random.Generator, noise: int, side: int) -> np.ndarray:
    """A greyish canvas that is neither black nor white nor colourful: (side, side, 3) float64."""
    base = lambda: rgb(rng.uniform(0, 360), rng.uniform(0, 0.18), rng.uniform(0.42, 0.74))
    canvas = np.broadcast_to(base(), (side, side, 3)).copy()
    if noise >= 1:
        across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
        angle = rng.uniform(0, 2 * math.pi)
        ramp = np.clip(
            0.5 + (across - 0.5) * math.cos(angle) + (down - 0.5) * math.sin(angle), 0, 1
        )[..., None]
        canvas = canvas * (1 - ramp) + base() * ramp
    if noise >= 2:
        cells = pick(rng, (4, 8, 16, 32))
        canvas += (smooth(rng, cells, side) + 0.5 * smooth(rng, 2 * cells, side))[..., None] * (
            8.0 if noise == 2 else 15.0
        )
    return canvas


def draw(scene: Scene, side: int = SIDE) -> Image.Image:
    """The picture of a scene, RGB."""
    rng = np.random.default_rng(scene.seed)
    canvas = background(rng, scene.noise, side)
    for one in scene.objects:
        mask, left, top = stencil(one, side)
        x0, y0, x1, y1 = (
            max(0, left),
            max(0, top),
            min(side, left + mask.width),
            min(side, top + mask.height),
        )
        cover = (
            np.asarray(mask, dtype=np.float64)[y0 - top : y1 - top, x0 - left : x1 - left, None]
            / 255
        )
        canvas[y0:y1, x0:x1] = (
            canvas[y0:y1, x0:x1] * (1 - cover) + paint_of(one.colour, rng) * cover
        )
    return photograph(canvas, scene.noise, rng)


def photograph(canvas: np.ndarray, noise: int, rng: np.random.Generator) -> Image.Image:
    """What a camera adds: uneven light, a colour cast, blur, sensor noise, JPEG."""
    side = canvas.shape[0]
    if noise >= 1:
        canvas = canvas * (1 + (0.05, 0.10, 0.18)[noise - 1] * smooth(rng, 3, side)[..., None])
    if noise == 3:
        canvas = canvas * rng.uniform(0.92, 1.06, 3)
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    if noise >= 2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, (0.8, 1.5)[noise - 2])))
        grain = rng.normal(0, rng.uniform(1, (5, 10)[noise - 2]), (side, side, 3)).astype(
            np.float32
        )
        image = Image.fromarray(
            np.clip(np.asarray(image, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
        )
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(*((60, 96), (30, 60))[noise - 2])))
        image = Image.open(buffer).convert("RGB")
    return image
