"""Pictures of every kind: read rightly, or named in one line."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from base import images
from base.files import UserError
from base.images import data_uri, list_images, open_image, resize_crop

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def near(pixel, wanted, slack=6) -> bool:
    return all(abs(int(a) - b) <= slack for a, b in zip(pixel, wanted, strict=True))


def half(mode: str, left, right) -> Image.Image:
    image = Image.new(mode, (40, 20), right)
    image.paste(left, (0, 0, 20, 20))
    return image


def palette_with_hole() -> bytes:
    image = Image.new("P", (40, 20), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (20, 0, 40, 20))
    return encoded(image, "PNG", transparency=1)


@pytest.mark.parametrize(
    "data, left, right",
    [
        (encoded(half("RGBA", (255, 0, 0, 255), (0, 0, 255, 0)), "PNG"), RED, WHITE),
        (encoded(half("LA", (0, 255), (0, 0)), "PNG"), (0, 0, 0), WHITE),
        (palette_with_hole(), RED, WHITE),
        (encoded(half("CMYK", (0, 255, 255, 0), (0, 0, 0, 0)), "JPEG", quality=95), RED, WHITE),
        (
            encoded(
                Image.fromarray(np.tile(np.uint16([32896] * 20 + [65535] * 20), (20, 1))), "PNG"
            ),
            (128, 128, 128),
            WHITE,
        ),
        (
            encoded(Image.fromarray(np.tile(np.float32([0.5] * 20 + [1.0] * 20), (20, 1))), "TIFF"),
            (128, 128, 128),
            WHITE,
        ),
        (encoded(half("1", 0, 1), "PNG"), (0, 0, 0), WHITE),
        (
            encoded(
                half("RGB", RED, WHITE),
                "GIF",
                save_all=True,
                append_images=[half("RGB", WHITE, RED)],
            ),
            RED,
            WHITE,
        ),
    ],
    ids=[
        "RGBA",
        "LA",
        "palette with transparency",
        "CMYK",
        "16 bit",
        "float",
        "1 bit",
        "animated GIF",
    ],
)
def test_every_mode_becomes_rgb(data, left, right):
    image = open_image(data)
    assert image.mode == "RGB" and image.size == (40, 20)
    assert near(image.getpixel((5, 10)), left) and near(image.getpixel((35, 10)), right)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = half("RGB", RED, WHITE)
    undo = {
        1: None,
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    stored = upright.transpose(Image.Transpose[undo[orientation]]) if undo[orientation] else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encoded(stored, "JPEG", exif=exif, quality=95))
    assert (
        image.size == (40, 20)
        and near(image.getpixel((5, 10)), RED, 12)
        and near(image.getpixel((35, 10)), WHITE, 12)
    )


def bomb(side: int = 20_000) -> bytes:
    chunk = lambda kind, body: (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes((side // 8 + 1) * side)))
        + chunk(b"IEND", b"")
    )


WHOLE = encoded(
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "JPEG"
)


@pytest.mark.parametrize(
    "data, words",
    [
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (encoded(Image.new("RGB", (99, 99), RED), "PNG")[:80], "damaged"),
        (b"", "empty"),
        (b"hello, I am a text", "no image"),
        (bomb(), "100,000,000 pixels"),
    ],
    ids=["truncated JPEG", "truncated PNG", "zero bytes", "text", "bomb"],
)
def test_bad_files_are_named_in_one_line(tmp_path, data, words):
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words) as error:
        open_image(path)
    assert "bad.png" in str(error.value) and "\n" not in str(error.value)


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(UserError):
            open_image(path)
    with pytest.raises(UserError, match="no image in"):
        list_images(tmp_path)


def test_folders_are_listed_in_order_and_below(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.webp", ".hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == [
        "a.png",
        "b.JPG",
        "sub/c.webp",
    ]


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (3, 700), (40, 20)])
@pytest.mark.parametrize("mode", ["crop", "squash"])
def test_any_shape_becomes_a_square(size, mode):
    assert resize_crop(Image.new("RGB", size, RED), 32, mode).shape == (32, 32, 3)


def test_crop_keeps_the_centre_and_squash_keeps_all():
    image = Image.new("RGB", (60, 20), WHITE)
    image.paste(RED, (20, 0, 40, 20))
    assert near(resize_crop(image, 20, "crop").mean((0, 1)), RED, 2)
    assert near(resize_crop(image, 30, "squash")[15, 2], WHITE, 2)


def test_a_large_jpeg_may_be_decoded_small_but_never_too_small():
    data = encoded(Image.new("RGB", (1600, 800), RED), "JPEG")
    image = open_image(data, at_least=100)
    assert 100 <= min(image.size) < 800


def test_thumbnails_are_pictures():
    kind, data = data_uri(Image.new("RGB", (500, 300), RED), 100).split(",")
    assert kind == "data:image/jpeg;base64" and Image.open(
        io.BytesIO(base64.b64decode(data))
    ).size == (100, 60)


@given(st.binary(max_size=200), st.integers(0, len(WHOLE)))
def test_random_bytes_give_a_picture_or_one_line(junk, cut):
    for data in (junk, WHOLE[:cut] + junk + WHOLE[cut + len(junk) :]):
        try:
            assert open_image(data).mode == "RGB"
        except UserError as error:
            assert "\n" not in str(error)


def test_a_fault_of_our_own_is_not_called_a_damaged_image(monkeypatch):
    """Pillow 10.0 lacks has_transparency_data: every image was called damaged."""
    good = encoded(Image.new("RGB", (8, 8)), "PNG")
    for error in (AttributeError("has_transparency_data"), TypeError("ours")):

        def broken(image, error=error):
            raise error

        monkeypatch.setattr(images, "to_rgb", broken)
        with pytest.raises(type(error)):
            open_image(good)


def test_pixels_that_are_no_numbers_are_one_line():
    image = Image.fromarray(np.full((4, 4), np.nan, np.float32))
    with pytest.raises(UserError, match="pixels cannot be used .*not finite"):
        open_image(encoded(image, "TIFF"))


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match="git lfs pull"):
        open_image(path)
