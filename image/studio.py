"""What paints and edits: a network of words and pictures, its picture codes, pixels in and out.

An edit changes the tokens of some places and keeps all other tokens. The decoder sees a few places
around each token, so pixels outside of the places would change a little. So only the pixels of the
places are pasted into the picture; all other pixels stay as they are.

Shapes: B pictures, P picture tokens, S side of the grid, X side of a picture in pixels.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from base import files, images
from base.config import SampleConfig
from base.files import UserError
from base.randomness import PLANS
from image import affected, bounds, candidates, planner, readings, tokenisers, writer
from image.guides import Guidance
from image.rows import Vocabulary
from image.writer import Painting
from loop import checkpoint
from net.painter import Painter
from net.samplers import row_generators
from worlds import changes
from worlds.changes import Change, Changed
from worlds.reader import Ungrammatical

SUREST = SampleConfig(temperature=0.0)
GRAMMAR = (
    "a change such as: the star is green | the red star is now a blue circle | there is no star"
)


@dataclass
class Brush:
    """How pictures are drawn. best_of: candidates of each picture (image/candidates.py)."""

    settings: SampleConfig
    guidance: Guidance = field(default_factory=Guidance)
    raster: bool = False
    seed: int = 0
    best_of: int = 1


@dataclass
class Studio:
    """A network, its vocabulary and its checkpoint, and the picture codes of its tokens."""

    model: Painter
    vocabulary: Vocabulary
    saved: dict
    codes: tokenisers.PictureCodes

    @property
    def objective(self) -> str:
        return self.saved["objective"]

    @property
    def directions(self) -> str:
        """What the network was trained for: both, to_picture or to_words."""
        return self.saved.get("flags", {}).get("directions", "both")

    @property
    def paints(self) -> bool:
        return self.directions != "to_words"

    @property
    def writes(self) -> bool:
        """Whether it puts pictures into words. The twin reads the words first."""
        return self.objective == "diffusion" and self.directions != "to_picture"

    @property
    def knows_hidden(self) -> bool:
        """Whether training hid words of plans from it (image/hidden_words.py)."""
        flags = self.saved.get("flags", {})
        met = flags.get("share_hidden", 0.0) > 0 and self.vocabulary.plan > 0
        return met and self.objective == "diffusion"

    @property
    def side(self) -> int:
        """Places on a side of the grid."""
        return self.model.side

    def pixels(self, tokens: Tensor) -> np.ndarray:
        """Tokens (B, P) int64 -> pictures (B, X, X, 3) uint8."""
        return tokenisers.to_images(self.codes.decode(tokens.to(self.codes.device)))

    def tokens(self, pictures: np.ndarray) -> Tensor:
        """Pictures (B, X, X, 3) uint8 -> tokens (B, P) int64."""
        return self.codes.encode(tokenisers.to_pixels(pictures, self.codes.device)).cpu()

    def open_picture(self, path: str) -> tuple[Image.Image, Tensor]:
        """The centre square of an image, and its tokens (P,). Raises UserError if it is none."""
        image = images.open_image(path)
        side = min(image.size)
        square = Image.fromarray(images.resize_crop(image, side))
        small = images.resize_crop(square, self.codes.config.side)
        return square, self.tokens(small[None])[0]

    def paint(self, prompts: list[str], brush: Brush, *, first: int = 0) -> Painting:
        """A picture for each prompt; the network plans it first, if its rows have plans.

        first: the number of the first picture. A picture's draws are those of its number. With
        candidates, picture i is one of the pictures i·n to i·n + n - 1. They show the same objects
        at other places.
        Raises UserError for a network that paints nothing, or cannot choose among candidates.
        """
        self.check_paints()
        self.check_best_of(brush)
        words, count = [self.ids(prompt) for prompt in prompts], brush.best_of
        if self.vocabulary.plan:
            # Other draws than the picture's, or the first places would follow the first words.
            rngs = row_generators(brush.seed + PLANS, len(words), first)
            words = planner.write(
                *(self.model, self.vocabulary, self.objective, words, brush.settings, rngs)
            )
        if count > 1:
            words = [row for row in words for _ in range(count)]
            rngs = row_generators(brush.seed + 2 * PLANS, len(words), first * count)
            words = planner.vary(self.model, self.vocabulary, words, brush.settings, rngs)
        painting = self.draw(words, brush, first=first * count)
        return candidates.best(self.model, self.vocabulary, painting, words, count)

    def ids(self, text: str) -> list[int]:
        """The ids of a text. Raises UserError if it is empty or too long for the network."""
        return writer.check_prompt(self.model, self.vocabulary, text)

    def check_paints(self) -> None:
        """Raise UserError for a network that paints nothing."""
        if not self.paints:
            raise UserError(
                "a picture from a network that only writes words",
                "a network of both directions, or --directions to_picture",
                "name another --checkpoint",
            )

    def check_guidance(self, guidance: Guidance) -> None:
        """Raise UserError for --sharpen of a network that met no hidden words."""
        if guidance.sharpen != 1.0 and not self.knows_hidden:
            raise UserError(
                f"--sharpen {guidance.sharpen:g} with a network that met no hidden words",
                "a diffusion network of a folder with plans, trained with --share_hidden",
                "leave out --sharpen",
            )

    @property
    def reads_plans(self) -> bool:
        """Whether it learnt to read plans in pictures."""
        flags = self.saved.get("flags", {})
        learnt = flags.get("share_words", 1.0) + flags.get("share_both", 1.0) > 0
        return self.writes and self.vocabulary.plan > 0 and learnt

    @property
    def reads_own(self) -> bool:
        """Whether it paints, and reads the plans of what it painted."""
        return self.paints and self.reads_plans

    def check_best_of(self, brush: Brush) -> None:
        """Raise UserError for candidates that are all alike, or that the network cannot read."""
        if brush.best_of == 1:
            return
        if not self.reads_own:
            raise UserError(
                f"--best_of {brush.best_of} with a network that paints no plans or reads none",
                "a diffusion network of both directions, of a folder with plans",
                "leave out --best_of",
            )
        if brush.settings.temperature == 0:
            raise UserError(
                f"--best_of {brush.best_of} with --temperature 0, so all candidates are alike",
                "a temperature above 0",
                "raise --temperature, or leave out --best_of",
            )

    def draw(
        self, words: list[list[int]], brush: Brush, *, start: Tensor | None = None, first: int = 0
    ) -> Painting:
        """A picture for the ids of each row's words, or the missing tokens of `start` (B, P)."""
        self.check_guidance(brush.guidance)
        painting = writer.paint(
            self.model,
            self.vocabulary,
            self.objective,
            words,
            brush.settings,
            start=start,
            guidance=brush.guidance,
            spread=not brush.raster,
            seed=brush.seed,
            first=first,
        )
        if self.vocabulary.plan:
            painting.plans = [planner.text_of(self.vocabulary, row) for row in words]
        return painting

    def describe(
        self, tokens: Tensor, lengths: int = 8, seed: int = 0, first: int = 0
    ) -> list[writer.Said]:
        """A caption for each picture (B, P). Raises UserError for a network that writes none.

        first: the number of the first picture. A picture's draws are those of its number.
        """
        if not self.writes:
            raise UserError(
                "a caption from a network that writes none",
                "a diffusion network of both directions",
                "name another --checkpoint, or give the caption with --prompt",
            )
        histogram = self.saved["statistics"]["row_lengths"]
        how = {"lengths": lengths, "seed": seed, "first": first}
        return writer.describe(self.model, self.vocabulary, tokens, histogram, **how)

    def wordings(
        self,
        tokens: Tensor,
        old: str,
        new: str,
        change: Change | None,
        seed: int,
        where: Tensor | None = None,
    ) -> "Wordings":
        """The words of a picture (P,) before and after a change.

        With plans, the network reads the old plan in the picture, and corrects it if it can
        (image/readings.py). The change is made in this plan.
        Where it does not fit the plan, the network writes a new plan of the new caption. Without a
        change, the new plan is read in the picture without the places `where` (P,) bool.
        Raises UserError for a network with plans that reads none.
        """
        before, after = self.ids(old), self.ids(new)
        if not self.vocabulary.plan:
            return Wordings(before, after)
        if not self.writes:
            raise UserError(
                "a change by a network that reads no plans in pictures",
                "a diffusion network of both directions",
                "name another --checkpoint",
            )
        before = self.read_plan(before, tokens, seed)
        if change is None:
            hidden = tokens if where is None else tokens.masked_fill(where, self.vocabulary.mask)
            return Wordings(before, self.read_plan(after, hidden, seed))
        if readings.can_check(self.model):
            before = readings.check(self.model, self.vocabulary, before, tokens)
        changed = planner.changed_plan(self.vocabulary, before, change)
        if changed is not None:
            scenes = [planner.scene_of(self.vocabulary, words) for words in (before, changed)]
            assert scenes[0] is not None and scenes[1] is not None  # both are plans
            touched = planner.places_of_change(scenes[0], scenes[1], self.side)
            return Wordings(before, after + changed, touched=touched)
        rngs = row_generators(seed + PLANS, 1)
        (after,) = planner.write(
            *(self.model, self.vocabulary, self.objective, [after], SUREST, rngs)
        )
        return Wordings(before, after, is_new=True)

    def read_plan(self, words: list[int], tokens: Tensor, seed: int) -> list[int]:
        """The ids of a caption with the plan that the network reads in a picture (P,)."""
        rngs = row_generators(seed + PLANS, 1)
        (read,) = planner.fill(self.model, self.vocabulary, [words], tokens[None], SUREST, rngs)
        return read

    def fallen(self, tokens: Tensor, words: "Wordings", finding: "Finding", seed: int) -> Tensor:
        """The places (P,) bool whose tokens fit the new words less than the old words.

        With plans, also those that a changed object touches.
        """
        score = affected.fall(
            self.model,
            self.vocabulary,
            tokens,
            words.old,
            words.new,
            draws=finding.draws,
            seed=seed,
        )
        found = affected.places(
            score, self.side, finding.threshold, finding.top_share, finding.grow
        )
        return found if words.touched is None else found | words.touched

    def edit(
        self, tokens: Tensor, where: Tensor, words: list[int], brush: Brush, first: int
    ) -> Painting:
        """Draw the places `where` (P,) bool of a picture (P,) again. Other tokens stay."""
        self.check_paints()
        self.check_best_of(brush)
        count = brush.best_of
        start = torch.where(where, self.vocabulary.mask, tokens).expand(count, -1)
        each = [words] * count
        painting = self.draw(each, brush, start=start, first=first * count)
        return candidates.best(self.model, self.vocabulary, painting, each, count)


@dataclass
class Wordings:
    """The ids of the words of a picture before and after a change.

    is_new: the change did not fit the plan that was read, so the network planned the whole picture.
    touched: (P,) bool, the places of what the change makes another in the plan; None: unknown.
    """

    old: list[int]
    new: list[int]
    is_new: bool = False
    touched: Tensor | None = None


@dataclass
class Finding:
    """How the places that a change affects are found."""

    threshold: float = 0.5
    top_share: float | None = None
    grow: int = 1
    draws: int = 16


def open_studio(path, data_dir: str, device) -> Studio:
    """A network of words and pictures with the picture codes of its folder.

    Raises UserError if the folder is not the one that the network was trained on.
    """
    model, tokenizer, saved = checkpoint.open_model(path, device, kinds=("image",))
    assert isinstance(model, Painter)
    model.fold()
    data = bounds.open_data(data_dir, saved)
    codes = tokenisers.open_codes(data.codes_file, device)
    plan = saved["statistics"].get("plan", 0)
    return Studio(model, Vocabulary(tokenizer, model.codes, plan), dict(saved), codes)


# ---- Changes and places


def read_change(caption: str, change: str) -> Changed:
    """The caption after a change in words. Raises UserError if one of them is not understood."""
    try:
        return changes.change_caption(caption, changes.read(change))
    except Ungrammatical as error:
        raise UserError(
            f"--change {change!r} of {caption!r} ({error})", GRAMMAR, "write it in this grammar"
        ) from error
    except changes.Impossible as error:
        raise UserError(
            f"--change {change!r} of {caption!r}: {error}",
            "a change of a thing that the caption names once",
            "name the thing with its colour, or give the old caption with --prompt",
        ) from error


def read_box(text: str) -> tuple[float, float, float, float]:
    """ "0,0,0.5,1" -> left, top, right, bottom. Raises UserError unless it is in the picture."""
    try:
        left, top, right, bottom = (float(word) for word in text.split(","))
        fits = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            f"--box {text}",
            "left,top,right,bottom as shares of the side, 0 to 1",
            "for example --box 0,0,0.5,0.5, the top left quarter",
        )
    return left, top, right, bottom


def places_of(box: tuple[float, float, float, float], side: int) -> Tensor:
    """The places of the grid that a box touches: (P,) bool."""
    left, top, right, bottom = (value * side for value in box)
    place = torch.arange(side)
    across = (place + 1 > left) & (place < right)
    down = (place + 1 > top) & (place < bottom)
    return (down[:, None] & across[None, :]).flatten()


def paste(original: Image.Image, painted: np.ndarray, where: Tensor, side: int) -> Image.Image:
    """The original with the pixels of some places from another picture.

    original: a square. painted: (X, X, 3) uint8. where: (P,) bool. All other pixels stay.
    """
    size = original.size
    grid = (where.view(side, side).numpy() * 255).astype(np.uint8)
    # NEAREST: a pixel belongs to a single place, wholly.
    mask = Image.fromarray(grid).resize(size, Image.Resampling.NEAREST)
    new = Image.fromarray(painted).resize(size, Image.Resampling.BICUBIC)
    return Image.composite(new, original, mask)


def save_image(path, image: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    with files.replacing(path) as file:
        image.save(file, "PNG")
