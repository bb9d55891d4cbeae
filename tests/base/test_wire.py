"""Messages: what is packed comes back to the bit, and what strangers send is refused in one line."""

import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from base import wire
from base.errors import UserError

msgpack = pytest.importorskip("msgpack", reason="pip install -r requirements-server.txt")

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
ARRAYS = arrays.arrays(
    st.sampled_from(wire.DTYPES).map(np.dtype),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
PLAIN |= st.binary()
TREES = st.recursive(
    PLAIN | ARRAYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def same(left, right) -> bool:
    if isinstance(left, np.ndarray):
        equal = left.tobytes() == right.tobytes()
        return equal and left.dtype == right.dtype and left.shape == right.shape
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and (left == right or left != left)


@QUICK
@given(TREES)
def test_what_is_packed_comes_back(value):
    try:
        wire.check(wire.pack(value))
    except UserError as error:
        assert "levels" in str(error)  # hypothesis may nest deeper than a message may
        return
    assert same(value, wire.unpack(wire.pack(value)))


@pytest.mark.parametrize("name", wire.DTYPES)
def test_scalars_come_back(name):
    value = np.dtype(name).type(1)
    found = wire.unpack(wire.pack({"a": value}))["a"]
    # numpy's float64 is a float to msgpack.
    assert (type(found) is type(value) or name == "<f8") and found == value


def test_arrays_may_be_written_to():
    found = wire.unpack(wire.pack(np.zeros(3, np.float32)))
    found[0] = 1
    assert found.tolist() == [1, 0, 0]


def array(data: bytes, dtype, shape) -> bytes:
    return msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape})


HOSTILE = {
    "objects": (array(b"\0" * 8, "|O", [1]), "type"),
    "records": (array(b"\0" * 8, "|V8", [1]), "type"),
    "texts": (array(b"\0" * 8, "<U2", [1]), "type"),
    "complex": (array(b"\0" * 16, "<c16", [1]), "type"),
    "a comma dtype": (array(b"\0" * 8, "f4,f4", [1]), "type"),
    "a dtype of lists": (array(b"\0" * 8, ["f4"], [1]), "type"),
    "big endian": (array(b"\0" * 4, ">f4", [1]), "type"),
    "more than it has": (array(b"\0" * 4, "<f4", [1 << 40]), "4 bytes for an array"),
    "a product that overflows": (array(b"", "<f4", [1 << 32, 1 << 32]), "0 bytes for an array"),
    "an enormous empty array": (array(b"", "<f4", [0, 1 << 40, 1 << 40]), "enormous"),
    "a negative size": (array(b"\0" * 4, "<f4", [-1]), "shape"),
    "a size that is true": (array(b"\0" * 4, "<f4", [True]), "shape"),
    "many axes": (array(b"\0" * 4, "<f4", [1] * 40), "shape"),
    "a text for bytes": (array("abcd", "<f4", [1]), "bytes"),
    "truth values": (array(b"\0\2\0", "|b1", [3]), "truth"),
    "another key": (msgpack.packb({b"__ndarray__": True, b"data": b""}), "other keys"),
    "a scalar that overflows": (
        msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}),
        "fits",
    ),
    "a scalar of text": (
        msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}),
        "scalar",
    ),
    "an extension": (msgpack.packb(msgpack.ExtType(5, b"abc")), "extension"),
    "a time": (msgpack.packb(msgpack.Timestamp(1, 0)), "extension"),
    "pickle": (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x02os\x94.", "after the end"),
    "nothing": (b"", "too early"),
    "a long list of nothing": (b"\xdd\xff\xff\xff\xff", "values"),
    "a long map of nothing": (b"\xdf\xff\xff\xff\xff", "values"),
    "long bytes of nothing": (b"\xc6\xff\xff\xff\xff", "too early"),
    "half a length": (b"\xc6\xff", "too early"),
    "depth": (b"\x91" * 100_000, "levels"),
    "no text": (b"\xa2\xff\xfe", "not msgpack"),
    "two messages": (b"\x01\x02", "after the end"),
    "a list as a key": (b"\x81\x90\x01", "not msgpack"),
    "the byte that is never used": (b"\xc1", "extension"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_are_refused_in_one_line(name):
    message, part = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=part) as error:
            wire.unpack(message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert peak < 1_000_000  # nothing was allocated that the message only claims


@pytest.mark.parametrize("head", [b"\xdc\x10\x00", b"\xde\x10\x00"])
def test_many_small_values_are_refused_before_they_are_made(head):
    message = head + b"\x80" * 8192
    wire.check(message[: 3 + 4096]) if head[0] == 0xDC else None
    with pytest.raises(UserError, match="values"):
        wire.unpack(b"\xdd" + struct.pack(">I", 200_000) + b"\x80" * 200_000)


@QUICK
@given(st.binary(max_size=200))
def test_noise_is_a_value_or_one_line(noise):
    try:
        wire.unpack(noise)
    except UserError as error:
        assert "\n" not in str(error)


@QUICK
@given(TREES, st.data())
def test_a_damaged_message_is_a_value_or_one_line(value, data):
    message = bytearray(wire.pack(value))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        wire.unpack(bytes(message))
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, np.zeros(2, complex), np.array([None]), np.zeros(2, "U3"), 1 << 70]
)
def test_what_no_message_can_hold_is_not_sent(value):
    with pytest.raises(UserError, match="no message can hold"):
        wire.pack({"a": value})


def test_a_message_has_a_largest_size():
    with pytest.raises(UserError, match="at most 100 bytes"):
        wire.unpack(wire.pack(np.zeros(100, np.uint8)), largest=100)


def test_a_frame_is_read_quickly():
    """Headers are walked in Python: pixels must not be."""
    message = wire.pack({"image": np.zeros((480, 640, 3), np.uint8), "state": [0.0] * 8})
    clock = time.process_time()
    for _ in range(20):
        wire.unpack(message)
    assert (time.process_time() - clock) / 20 < 0.02
