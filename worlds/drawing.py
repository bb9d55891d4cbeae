"""The image of a scene: shapes as polygons, and what a camera adds.

    noise 0   a plain background
    noise 1   gradients, uneven light
    noise 2   texture, blur, sensor noise, JPEG
    noise 3   more of all, and colour casts (never in training)

A tidy scene has one shade per colour, and one of a few backgrounds.

The scene holds the seed of everything random, so a scene has one image.
"""

import copy
import dataclasses
import io
import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from worlds.scenes import Object, Scene, pick

SIDE = 224  # pixels: what CLIP's and most other encoders read
OVERSAMPLING = 4  # shapes are drawn at four times the size and averaged, for smooth edges
# Hue in degrees with its jitter, saturation, value. The colours keep clear of each other and of the
# greyish backgrounds.
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

TIDY_GREYS = (0.48, 0.58, 0.68)  # values of the backgrounds of tidy scenes
GROUNDS = ("dark", "middle", "bright")  # their names


# --- shapes ------------------------------------------------------------------------------------


def regular(corners: int, start: float = 0.0) -> np.ndarray:
    """A regular polygon on the unit circle, its first corner at the angle `start`: (corners, 2)."""
    angle = start + np.arange(corners) * 2 * math.pi / corners
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def star() -> np.ndarray:
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return regular(10, -math.pi / 2) * radius[:, None]


def rectangle() -> np.ndarray:
    return np.array([[-1, -0.5], [1, -0.5], [1, 0.5], [-1, 0.5]]) / math.hypot(1, 0.5)


def cross() -> np.ndarray:
    half = 0.34  # the width of an arm, halved
    arm = [(half, 1), (half, half), (1, half), (1, -half), (half, -half), (half, -1)]
    opposite = [(-x, -y) for x, y in arm]
    return np.array(arm + opposite) / math.hypot(1, half)


def semicircle() -> np.ndarray:
    angle = np.linspace(0, math.pi, 40)
    return np.stack([np.cos(angle), np.sin(angle) - 0.3], 1) / 1.05


def heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 2.5
    return np.stack([x, y], 1) / 17.5


OUTLINES = {
    "circle": lambda: regular(72),
    "square": lambda: regular(4, math.pi / 4),
    "triangle": lambda: regular(3, -math.pi / 2),
    "rectangle": rectangle,
    "star": star,
    "cross": cross,
    "semicircle": semicircle,
    "heart": heart,
}


def outline(shape: str) -> np.ndarray:
    """The shape as a polygon inside the unit circle: (corners, 2) float64, y downwards."""
    return OUTLINES[shape]()


def draw_stripes(draw, centre: np.ndarray, turn: np.ndarray, size: int, step: float) -> None:
    for offset in np.arange(-size, size, step):
        ends = np.array([[offset, -size], [offset, size]]) @ turn.T + centre
        draw.line([tuple(end) for end in ends], fill=255, width=round(step * 0.45))


def draw_dots(draw, centre: np.ndarray, turn: np.ndarray, step: float) -> None:
    """Dots on a hexagonal grid: every second row is shifted, rows are sqrt(3)/2 apart."""
    radius = step * 0.3
    for column in np.arange(-8, 9):
        for row in np.arange(-8, 9):
            grid = np.array([column + 0.5 * (row % 2), row * 0.87])
            x, y = grid * step * 1.05 @ turn.T + centre
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)


def stencil(thing: Object, side: int) -> tuple[Image.Image, int, int]:
    """Where the object has paint: a greyscale image with smooth edges, and its top left corner.

    side: of the whole image, in pixels.
    """
    scale = OVERSAMPLING
    reach = math.ceil(thing.radius * side) + 2
    left, top = round(thing.x * side) - reach, round(thing.y * side) - reach
    size = 2 * reach * scale
    centre = np.array([thing.x * side - left, thing.y * side - top]) * scale
    angle = math.radians(thing.angle)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = outline(thing.shape) @ turn.T * thing.radius * side * scale + centre
    corners = [tuple(point) for point in points]
    body = Image.new("L", (size, size))
    ImageDraw.Draw(body).polygon(corners, fill=255)
    if thing.fill != "solid":
        paint = Image.new("L", (size, size))
        draw = ImageDraw.Draw(paint)
        # At least 3 pixels: a thinner line would vanish in the blur of noise 2.
        pen = scale * max(3.0, 0.17 * thing.radius * side)
        edge = [*corners, corners[0], corners[1]]
        draw.line(edge, fill=255, width=round(2 * pen), joint="curve")  # half lies outside
        step = scale * max(6.5, 0.30 * thing.radius * side)
        if thing.fill == "striped":
            draw_stripes(draw, centre, turn, size, step)
        elif thing.fill == "dotted":
            draw_dots(draw, centre, turn, step)
        body = ImageChops.multiply(body, paint)
    # BOX averages each 4 × 4 block, and adds no ringing at the edges.
    return body.resize((2 * reach, 2 * reach), Image.Resampling.BOX), left, top


# --- colour, background, camera ----------------------------------------------------------------


def rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Hue in degrees, the others in [0, 1] -> (3,) float64 in 0..255."""
    k = (np.array([5.0, 3.0, 1.0]) + hue / 60) % 6
    return 255 * (value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1))


def paint_of(colour: str, rng: np.random.Generator, tidy: bool = False) -> np.ndarray:
    """A shade of the colour, or its one tidy shade: (3,) float64 in 0..255."""
    hue, jitter, saturation, value = HSV[colour]
    if tidy:
        return rgb(hue, saturation, value)
    hue = (hue + rng.uniform(-jitter, jitter)) % 360
    saturation = min(1, saturation * rng.uniform(0.94, 1.04))
    return rgb(hue, saturation, min(1, value * rng.uniform(0.94, 1.03)))


def grey(rng: np.random.Generator, tidy: bool = False) -> np.ndarray:
    """A greyish colour that is neither black nor white: (3,) float64 in 0..255."""
    if tidy:
        return rgb(0.0, 0.0, pick(rng, TIDY_GREYS))
    return rgb(rng.uniform(0, 360), rng.uniform(0, 0.18), rng.uniform(0.42, 0.74))


def ground(scene: Scene) -> str:
    """The background of a tidy scene: one of GROUNDS."""
    # The first draw of `draw_frames` is the background's.
    return pick(np.random.default_rng(scene.seed), GROUNDS)


def smooth(rng: np.random.Generator, cells: int, side: int) -> np.ndarray:
    """Smooth noise in about [-1, 1]: (side, side)."""
    small = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def background(rng: np.random.Generator, noise: int, side: int, tidy: bool = False) -> np.ndarray:
    """A greyish canvas: (side, side, 3) float64."""
    canvas = np.broadcast_to(grey(rng, tidy), (side, side, 3)).copy()
    if noise >= 1:  # from one grey to another, in a random direction
        across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
        angle = rng.uniform(0, 2 * math.pi)
        ramp = 0.5 + (across - 0.5) * math.cos(angle) + (down - 0.5) * math.sin(angle)
        ramp = np.clip(ramp, 0, 1)[..., None]
        canvas = canvas * (1 - ramp) + grey(rng) * ramp
    if noise >= 2:
        cells = pick(rng, (4, 8, 16, 32))
        texture = smooth(rng, cells, side) + 0.5 * smooth(rng, 2 * cells, side)
        canvas += texture[..., None] * (8.0 if noise == 2 else 15.0)
    return canvas


def put(canvas: np.ndarray, mask: Image.Image, left: int, top: int, paint: np.ndarray) -> None:
    """Paint a stencil on the canvas (side, side, 3), in place; what lies outside is cut off."""
    side = canvas.shape[0]
    x0, x1 = max(0, left), min(side, left + mask.width)
    y0, y1 = max(0, top), min(side, top + mask.height)
    if x0 >= x1 or y0 >= y1:
        return  # all of it lies outside
    pixels = np.asarray(mask, dtype=np.float64)
    cover = pixels[y0 - top : y1 - top, x0 - left : x1 - left, None] / 255
    canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - cover) + paint * cover


def photograph(canvas: np.ndarray, noise: int, rng: np.random.Generator) -> Image.Image:
    """What a camera adds: uneven light, a colour cast, blur, sensor noise, JPEG."""
    side = canvas.shape[0]
    if noise >= 1:
        shade = (0.05, 0.10, 0.18)[noise - 1] * smooth(rng, 3, side)
        canvas = canvas * (1 + shade[..., None])
    if noise == 3:
        canvas = canvas * rng.uniform(0.92, 1.06, 3)
    image = to_image(canvas)
    if noise < 2:
        return image
    blur, grain, quality = ((0.8, 5, (60, 96)), (1.5, 10, (30, 60)))[noise - 2]
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, blur)))
    sensor = rng.normal(0, rng.uniform(1, grain), (side, side, 3)).astype(np.float32)
    image = to_image(np.asarray(image, dtype=np.float32) + sensor)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(*quality)))
    return Image.open(buffer).convert("RGB")


def to_image(canvas: np.ndarray) -> Image.Image:
    """(side, side, 3) floats, cut to 0..255, as an RGB image."""
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def draw(scene: Scene, side: int = SIDE) -> Image.Image:
    """The image of a scene, RGB, side × side pixels."""
    return draw_frames([scene], side)[0]


def draw_frames(frames: list[Scene], side: int = SIDE) -> list[Image.Image]:
    """The image of each scene. All have the same seed, noise and colours, in the same order.

    Each image is what `draw` gives. The background is drawn once, and so is an object that stands
    still: both take most of the time.
    """
    first = frames[0]
    rng = np.random.default_rng(first.seed)
    ground = background(rng, first.noise, side, first.tidy)
    paints = [paint_of(thing.colour, rng, first.tidy) for thing in first.objects]
    stencils: dict[tuple, tuple[Image.Image, int, int]] = {}
    images = []
    for scene in frames:
        canvas = ground.copy()
        for thing, paint in zip(scene.objects, paints, strict=True):
            key = dataclasses.astuple(thing)
            if key not in stencils:
                stencils[key] = stencil(thing, side)
            put(canvas, *stencils[key], paint)
        # A camera of its own for each image: it draws as if the image was drawn alone.
        images.append(photograph(canvas, scene.noise, copy.deepcopy(rng)))
    return images
