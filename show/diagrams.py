"""Two diagrams: the whole captioner, and the diffusion process. block_diagram.py draws one block.

Everything drawn is passed in as plain values: names, shapes, counts, words.
"""

from pathlib import Path

from show.sheet import FAINT, INK, NEW_INK, PALETTE, Sheet, formula_width

LEGEND = "B batch  ·  L length  ·  D width  ·  H heads  ·  V vocabulary  ·  P patches"
BAR = 426  # width of the bars of the right half
PITCH = 48  # height of a part of a block, with the gap above it


def short(number: int) -> str:
    """1234567 -> 1.23 M, 12345 -> 12.3 k, 1234 -> 1,234."""
    if number >= 1e6:
        return f"{number / 1e6:.2f} M"
    if number >= 1e4:
        return f"{number / 1e3:.1f} k"
    return f"{number:,}"


def states_of(words: list[str], before: list[str] | None = None, hidden: str = "mask") -> list[str]:
    """The state of each word of a row: known, new, or `hidden` for "" (not revealed yet).

    before: the row of the call before; a word that it does not have is new.
    """
    states = []
    for word, old in zip(words, before or words, strict=True):
        if not word:
            states.append(hidden)
        else:
            states.append("known" if old or before is None else "new")
    return states


# --- the whole captioner -----------------------------------------------------------------------


def captioning(
    path: Path, model: dict, encoder: dict | None, words: list[str], now: list[str], then: list[str]
) -> list[Path]:
    """The whole captioner. Without an encoder, the network that writes text, its right half.

    model: parameters, layers, width, vocabulary, causal; counts and shapes of its parts by name.
    encoder: name, patches, width; parameters, side, image and features (pixels) if they are known.
    words: the caption; now, then: a call's input and its output, "" for a word not revealed yet.
    Returns the files written.
    """
    counts = model["counts"]
    parts = [part for part in ("attention", "cross", "mlp") if part in counts]
    top = 218.0 + PITCH * len(parts)  # of the stack of blocks
    sheet = Sheet(900 if encoder else 528, top + 250)
    captions_heading(sheet, top, model, encoder)
    left = 386 if encoder else 14
    sheet.frame(left, 36, 500, top + 172, "panel", radius=10)
    level = top + 191
    side_note(sheet, left + 18, level, "once per call of the network", 9, "left")
    side_note(sheet, left + 432, level, "parameters", 8.4, "right")
    if encoder:
        once_per_image(sheet, model, encoder)
    x, middle = left + 18, left + 231
    # The twin has no masks: a token that it has not drawn is not there yet.
    hidden = "later" if model["causal"] else "mask"
    sheet.tokens(x, 56, words, states_of(now, hidden=hidden), BAR)
    embedding_bar(sheet, x, middle, model)
    y = stack_of_blocks(sheet, x, middle, top, parts, model)
    output_bars(sheet, x, middle, y, top, model)
    sheet.tokens(x, top + 148, words, states_of(then, now, hidden), BAR)
    way_back(sheet, x, top, model)
    return sheet.save(path)


def side_note(sheet: Sheet, x: float, y: float, words: str, size: float, side: str) -> None:
    sheet.text(x, y, words, size, ha=side, color=FAINT, style="italic")


def shape_note(sheet: Sheet, middle: float, y: float, shape: str) -> None:
    """A shape next to the arrow at `middle`."""
    sheet.text(middle + 11, y, shape, 8, ha="left", color=FAINT)


def captions_heading(sheet: Sheet, top: float, model: dict, encoder: dict | None) -> None:
    """Title, number of parameters, and the legend at the foot."""
    kind = "the autoregressive twin" if model["causal"] else "masked diffusion"
    title = f"{'Captions' if encoder else 'Text'} by {kind}"
    sheet.text(16, top + 227, title, 13, ha="left", weight="bold")
    counted = f"{model['parameters']:,} parameters trained"
    if encoder and encoder.get("parameters"):
        counted += f", {encoder['parameters']:,} frozen"
    sheet.text(sheet.width - 16, top + 227, counted, 8.8, ha="right", color=FAINT)
    legend = LEGEND + f"  ·  M {'drawn' if model['causal'] else 'masked'}"
    sheet.text(sheet.width / 2, 17, legend, 8.4, color=FAINT, within=sheet.width - 30)


def embedding_bar(sheet: Sheet, x: float, middle: float, model: dict) -> None:
    """From tokens (B, L) to their embeddings (B, L, D)."""
    sheet.arrow((middle, 78), (middle, 112))
    shape_note(sheet, middle, 95, "(B, L)")
    # 0 for a model that is not told the masked share.
    time = model["counts"].get("time", 0)
    title = "embedding + masked share" if time else "embedding"
    size = f"V × D = {model['vocabulary']:,} × {model['width']:,}"
    sheet.bar(x, 112, BAR, 32, title, size, short(model["counts"]["embedding"] + time))
    sheet.arrow((middle, 144), (middle, 176))
    shape_note(sheet, middle, 158, f"(B, L, D) = {model['shapes']['embedding']}")


def stack_of_blocks(
    sheet: Sheet, x: float, middle: float, top: float, parts: list[str], model: dict
) -> float:
    """One block in front of a stack. Returns the level above its last part."""
    counts, y = model["counts"], 188.0
    for shift in (10, 5, 0):
        sheet.frame(x + shift, 176 + shift, 416, top - 176, "plain", radius=8)
    for part in parts:
        if part == "cross":  # the keys and values come from the left half
            path = ((350, 160), (376, 160), (376, y + 17), (x + 12, y + 17))
            sheet.arrow(*path, color=PALETTE["cross"][1], width=1.6)
        title, about = model["titles"][part], model["about"][part]
        sheet.bar(x + 12, y, 392, 34, title, about, short(counts[part]), part)
        y += PITCH
        if part != parts[-1]:
            sheet.arrow((middle, y - 14), (middle, y))
    sheet.text(x + 14, y + 14, f"{model['layers']} blocks", 9.6, ha="left", weight="bold")
    product = f"{model['layers']} × {short(counts['block'])}"
    sheet.text(x + 392, y + 14, product, 8.4, ha="right", color=FAINT)
    return y


def output_bars(sheet: Sheet, x: float, middle: float, y: float, top: float, model: dict) -> None:
    """From the blocks to logits, and from logits to tokens."""
    sheet.arrow((middle, y - 14), (middle, top + 46))
    shape_note(sheet, middle, top + 32, model["shapes"]["blocks.0"])
    tied = f"tied with the embedding, {model['shapes']['logits']}"
    sheet.bar(x, top + 46, BAR, 32, "norm, logits", tied, short(model["counts"]["norm"]))
    sheet.arrow((middle, top + 78), (middle, top + 98))
    rule = "draws the next token" if model["causal"] else "picks positions, then draws their tokens"
    sheet.bar(x, top + 98, BAR, 32, "sampler", rule, "none")
    sheet.arrow((middle, top + 130), (middle, top + 148))


def way_back(sheet: Sheet, x: float, top: float, model: dict) -> None:
    """The dashed line from a call's output to the next call's input."""
    colour, level = PALETTE["new"][1], top + 159
    path = ((x + 427, level), (x + 450, level), (x + 450, 67), (x + 427, 67))
    sheet.arrow(*path, dashed=True, color=colour)
    again = "again, until [EOS]" if model["causal"] else "again, until no mask is left"
    style = {"color": colour, "rotation": 90, "va": "center"}
    sheet.text(x + 466, (level + 67) / 2, again, 8.2, **style)


def once_per_image(sheet: Sheet, model: dict, encoder: dict) -> None:
    """The left half: from pixels to keys and values, and how long the caption will be."""
    sheet.frame(14, 36, 352, 534, "panel", radius=10)
    side_note(sheet, 32, 553, "once per picture", 9, "left")
    image_and_encoder(sheet, encoder)
    features_and_heads(sheet, model, encoder)
    if not model["causal"]:
        colour = PALETTE["head"][1]
        sheet.arrow((96, 122), (96, 67), (402, 67), color=colour)
        sheet.text(232, 77, "L: how many masks", 8.2, color=colour)


def image_and_encoder(sheet: Sheet, encoder: dict) -> None:
    sheet.picture(38, 412, 108, encoder["image"])
    side, count = encoder.get("side"), encoder.get("parameters")
    sheet.text(92, 400, f"(B, 3, {side}, {side})" if side else "pixels", 8, color=FAINT)
    sheet.arrow((146, 466), (178, 466))
    notes = (encoder["name"] + ", frozen", short(count) if count else "")
    sheet.box(178, 428, 170, 76, "image encoder", *notes, kind="image")
    sheet.arrow((263, 428), (263, 372))
    sheet.text(273, 401, f"P = {encoder['patches']}", 8, ha="left", color=FAINT)


def features_and_heads(sheet: Sheet, model: dict, encoder: dict) -> None:
    """Features (B, P, width), and what the network makes of them once per image."""
    counts, shapes = model["counts"], model["shapes"]
    shape = f"(B, {encoder['patches']}, {encoder['width']})"
    if encoder.get("features") is not None:
        sheet.picture(209, 264, 108, encoder["features"], sharp=True)
        shape += ", as colours"
    else:
        sheet.box(209, 264, 108, 108, "features", f"{encoder['patches']} patches", kind="image")
    sheet.text(263, 252, shape, 8, color=FAINT)
    sheet.arrow((209, 318), (160, 318))
    sheet.box(32, 294, 128, 48, "standardise", "by channel, add place")
    # A model of dialogues has no length head: its slots are all of one length.
    has_lengths = "length" in shapes
    sheet.arrow((96, 294), (96, 198 if has_lengths else 226))
    sheet.arrow((96, 226), (263, 226), (263, 198))
    keys = (f"{model['layers']} × 2 × {shapes['keys']}", short(counts["keys"]) + ", in the blocks")
    sheet.box(178, 122, 172, 76, "keys and values", *keys, kind="cross")
    if has_lengths:
        lengths = ("from all patches", shapes["length"], short(counts["length"]))
        sheet.box(32, 122, 128, 76, "length head", *lengths, kind="head")


# --- the process -------------------------------------------------------------------------------


def process(
    path: Path,
    words: list[str],
    masked: list[list[str]],
    written: list[list[str]],
    conditioned: bool,
) -> list[Path]:
    """Masking next to writing: clean (t = 0) at the top, all masked (t = 1) at the bottom.

    masked: the caption at rising noise, "" where a mask is. written: the frames of a sampler, from
    all masks to none. conditioned: whether an image is given. Returns the files written.
    """
    sheet = Sheet(900, 480)
    training = "exactly k of n tokens, k uniform on 1 … n; every mask drawn anew"
    writing = "from the bottom up; orange is what this call drew"
    panel(sheet, 14, "training: mask", training)
    panel(sheet, 494, "writing: reveal", writing)
    # Masking goes down the page and writing goes up, so equal noise stands side by side.
    frames = written[::-1]
    for row, (noisy, frame) in enumerate(zip(masked, frames, strict=True)):
        y, k = 376 - 46 * row, noisy.count("")
        sheet.tokens(30, y, words, states_of(noisy), 360, height=26)
        # Time runs upwards here: the call before is one row below.
        before = frames[row + 1] if row + 1 < len(frames) else None
        sheet.tokens(510, y, words, states_of(frame, before), 360, height=26)
        level = {0: "t = 0", len(words): "t = 1"}.get(k, f"t = {k / len(words):g}")
        sheet.text(450, y + 19, level, 8.4, weight="bold")
        sheet.text(450, y + 6, f"k = {k}", 8, color=FAINT)
    sheet.arrow((414, 402), (414, 192), width=1.6)
    sheet.arrow((486, 192), (486, 402), width=1.6, color=PALETTE["new"][1])
    loss_line(sheet, conditioned)
    foot = "n tokens that may be masked  ·  S the masked ones  ·  "
    foot += "the network sees both sides of every mask"
    sheet.text(450, 18, foot, 8.4, color=FAINT)
    return sheet.save(path)


def panel(sheet: Sheet, left: float, title: str, words: str) -> None:
    sheet.frame(left, 168, 392, 298, "panel", radius=10)
    sheet.text(left + 16, 445, title, 10.5, ha="left", weight="bold")
    sheet.text(left + 16, 426, words, 8.2, within=360, ha="left", color=FAINT)


def loss_line(sheet: Sheet, conditioned: bool) -> None:
    """The likelihood, its bound, and the estimator that training uses, each with its meaning."""
    # A text has no image to be conditioned on.
    given = r",\,\mathrm{image}" if conditioned else ""
    whole = r"x\,|\,\mathrm{image}" if conditioned else "x"
    nats = rf"{{-}}\log p_\theta(x_i\,|\,x_{{\backslash S}}{given})"
    masked_sum = rf"\sum_{{i\in S}}\;{nats}"
    bound = rf"\sum_{{k=1}}^{{n}}\;\mathrm{{E}}_{{|S|=k}}\,\dfrac{{1}}{{k}}\;{masked_sum}"
    estimator = rf"\mathrm{{E}}_{{k,\,S}}\;\dfrac{{n}}{{k}}\;{masked_sum}"
    of_what = "nats of the caption" if conditioned else "nats of the text"
    pieces = [
        (rf"$-\log p_\theta({whole})$", of_what, INK),
        (r"$\leq$", "", INK),
        (f"${bound}$", "the bound, the same for every schedule", INK),
        (r"$=$", "", INK),
        (f"${estimator}$", "one draw a row: k, then S of exactly k tokens", NEW_INK),
    ]
    sheet.frame(14, 40, 872, 112, radius=10, edgecolor="#dee2e6")
    # matplotlib places each text alone, so the line is centred by the sum of the widths.
    widths = [formula_width(tex, 12.5) for tex, _, _ in pieces]
    x = 450 - (sum(widths) + 16 * (len(pieces) - 1)) / 2
    for (tex, meaning, colour), width in zip(pieces, widths, strict=True):
        sheet.formula(x, 98, tex, 12.5, colour)
        sheet.text(x + width / 2, 55, meaning, 8.4, color=FAINT)
        x += width + 16
