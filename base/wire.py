"""Messages between a robot and a policy: msgpack with numpy arrays, in the format of openpi.

An array is a map with the keys `__ndarray__`, `data`, `dtype` and `shape`, all of them bytes; a
numpy scalar has `__npgeneric__`, `data` and `dtype`. Everything else is plain msgpack.

What arrives is from a stranger. `unpack` reads the headers first and makes nothing: a message
that is too deep, has too many items, or claims more bytes than it has is refused before anything
is allocated. No object is ever made from a name in the message: pickle, objects, records, texts
and msgpack's extensions are refused.

It needs `pip install -r requirements-server.txt`.
"""

import math

import numpy as np

from base.errors import UserError

DTYPES = tuple(
    np.dtype(name).newbyteorder("<").str
    for name in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
)
DEPTH = 8  # of maps and lists in each other
ITEMS = 10_000  # values of a message; pixels are one value
MEGABYTE = 1 << 20
LARGEST = 32 * MEGABYTE  # bytes of a message: ten images of 1024 pixels
AXES = 8  # of an array

# msgpack's first bytes, from its specification: what follows is a length, or a value.
# First byte: (kind, bytes of the length or the value).
HEADS = {
    **{0xC4 + i: ("bytes", 1 << i) for i in range(3)},
    **{0xD9 + i: ("bytes", 1 << i) for i in range(3)},
    **{0xCC + i: ("value", 1 << i) for i in range(4)},  # unsigned
    **{0xD0 + i: ("value", 1 << i) for i in range(4)},  # signed
    **{0xDC + i: ("list", 2 << i) for i in range(2)},
    **{0xDE + i: ("map", 2 << i) for i in range(2)},
    0xC0: ("value", 0),
    0xC2: ("value", 0),
    0xC3: ("value", 0),
    0xCA: ("value", 4),
    0xCB: ("value", 8),
}


def load():
    """The module msgpack. Raises UserError if it is missing."""
    try:
        import msgpack
    except ImportError as error:
        raise missing("msgpack") from error
    return msgpack


def missing(module: str) -> UserError:
    """The error for a module of requirements-server.txt that is not there."""
    return UserError(
        f"no module {module}",
        "the modules that servers and their clients need",
        "pip install -r requirements-server.txt",
    )


def refused(found: str, expected: str = "a message in openpi's format") -> UserError:
    return UserError(found, expected, "correct what the sender sends")


# --- out ---------------------------------------------------------------------------------------


def pack(value) -> bytes:
    """A message of dicts, lists, texts, bytes, numbers, None and arrays.

    Raises UserError for an array of another type than DTYPES, and for any other object.
    """
    try:
        return load().packb(value, default=plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"a value that no message can hold ({error})",
            "dicts, lists, texts, numbers and arrays of numbers",
            "correct the value",
        ) from error


def plain(value):
    """An array or a numpy scalar as a map. Raises TypeError for another object."""
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"a {type(value).__name__}")
    name = value.dtype.str
    if name not in DTYPES:
        raise TypeError(f"the dtype {name}")
    if isinstance(value, np.ndarray):
        about = {b"__ndarray__": True, b"data": value.tobytes()}
        return about | {b"dtype": name, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": name}


# --- in ----------------------------------------------------------------------------------------


def unpack(message: bytes, largest: int = LARGEST):
    """What `pack` packed; arrays are new and may be written to.

    largest: bytes of the message. Raises UserError for anything else than a whole message.
    """
    if len(message) > largest:
        raise refused(f"a message of {len(message):,} bytes", f"at most {largest:,} bytes")
    check(message)
    try:
        return load().unpackb(message, object_hook=revived, strict_map_key=False)
    except UserError:
        raise
    except Exception as error:  # texts that are no UTF-8, keys that are lists, and the like
        raise refused(f"a message that is not msgpack ({type(error).__name__})") from error


def check(message: bytes) -> None:
    """Walk over the headers of a message, and make nothing. Raises UserError."""
    place, items = 0, 0
    open_: list[int] = [1]  # for each open map or list: values that are still to come
    while open_:
        if not open_[-1]:
            open_.pop()
            continue
        open_[-1] -= 1
        items += 1
        kind, size, place = header(message, place)
        if kind in ("list", "map"):
            open_.append(size if kind == "list" else 2 * size)
            if len(open_) > DEPTH + 1:
                raise refused(f"a message of more than {DEPTH} levels", f"at most {DEPTH}")
        else:
            place += size
        if items + sum(open_) > ITEMS:
            raise refused(f"a message of more than {ITEMS:,} values", f"at most {ITEMS:,}")
        if place > len(message):
            raise refused("a message that ends too early")
    if place != len(message):
        raise refused(f"{len(message) - place:,} bytes after the end of a message")


def header(message: bytes, place: int) -> tuple[str, int, int]:
    """The kind of the value at a place, its size, and the place behind its header.

    size: entries of a list or a map, or else bytes that follow.
    """
    if place >= len(message):
        raise refused("a message that ends too early")
    first = message[place]
    place += 1
    if first < 0x80 or first >= 0xE0:
        return "value", 0, place
    if first < 0xA0:
        return ("map" if first < 0x90 else "list"), first & 0x0F, place
    if first < 0xC0:
        return "bytes", first & 0x1F, place
    if first not in HEADS:
        raise refused(f"the byte {first:#x} in a message, an extension of msgpack")
    kind, size = HEADS[first]
    if kind == "value":
        return kind, size, place
    if place + size > len(message):
        raise refused("a message that ends too early")
    return kind, int.from_bytes(message[place : place + size], "big"), place + size


def revived(value: dict):
    """An array or a numpy scalar from its map; any other map stays as it is."""
    if b"__ndarray__" in value:
        return array_of(value)
    if b"__npgeneric__" in value:
        return scalar_of(value)
    return value


def dtype_of(value: dict, names: set[bytes]) -> np.dtype:
    """The dtype of an array's or a scalar's map, which has exactly these keys."""
    if set(value) != names:
        raise refused("an array's map with other keys", "data, dtype and shape")
    name = value[b"dtype"]
    name = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(name, str) or name not in DTYPES:
        shown = repr(name)[:40]
        raise refused(f"an array of the type {shown}", "one of " + ", ".join(DTYPES))
    return np.dtype(name)


def array_of(value: dict) -> np.ndarray:
    """The array that a map describes. Raises UserError."""
    dtype = dtype_of(value, {b"__ndarray__", b"data", b"dtype", b"shape"})
    data, shape = value[b"data"], value[b"shape"]
    whole = isinstance(shape, list) and len(shape) <= AXES
    if not whole or not all(type(size) is int and size >= 0 for size in shape):
        raise refused("an array without a shape", f"a list of at most {AXES} counts")
    if not isinstance(data, bytes):
        raise refused("an array without bytes", "bytes")
    # Python's own integers: numpy's would overflow, and say that the size is right.
    if math.prod(shape) * dtype.itemsize != len(data):
        shown = " x ".join(map(str, shape))[:80]
        raise refused(
            f"{len(data):,} bytes for an array of {shown} {dtype.str}", "as many as it needs"
        )
    if 0 in shape:
        # numpy multiplies all other sizes, even if one is 0.
        if math.prod(max(size, 1) for size in shape) > LARGEST:
            raise refused("an empty array of an enormous shape", "a shape that numpy can hold")
        return np.zeros(shape, dtype)
    if dtype.kind == "b" and data.strip(b"\0\1"):
        raise refused("truth values that are neither 0 nor 1", "0 or 1")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def scalar_of(value: dict) -> np.generic:
    """The numpy scalar that a map describes. Raises UserError."""
    dtype = dtype_of(value, {b"__npgeneric__", b"data", b"dtype"})
    data = value[b"data"]
    kinds = {"b": bool, "f": float}.get(dtype.kind, int)
    if type(data) is not kinds:
        raise refused(f"a {type(data).__name__} for a scalar {dtype.str}", kinds.__name__)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not limits.min <= data <= limits.max:
            raise refused(f"the number {data} for a scalar {dtype.str}", "a number that fits")
    return dtype.type(data)
