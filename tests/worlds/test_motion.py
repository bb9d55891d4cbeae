"""Moving scenes: reversal and the other order, their frames to the pixel, what is true of events."""

import dataclasses

import numpy as np
import pytest

from worlds import drawing, motion
from worlds.motion import FRAMES, LAST, Event, Program
from worlds.motion_sampling import SPLITS, sample
from worlds.scenes import Object

CIRCLE = Object("circle", "red", "small", "solid", 0.2, 0.3, 0.08)
SQUARE = Object("square", "blue", "small", "solid", 0.6, 0.7, 0.08)
RIGHT = Event("x", 0, 1, 5, 0.2, 0.6)
GONE = Event("there", 1, 5, 6, 1.0, 0.0)
PROGRAM = Program((CIRCLE, SQUARE), (RIGHT, GONE), seed=3)


def programs() -> list[Program]:
    return [sample(5, split, number) for split in SPLITS for number in range(6)]


def test_frames_by_hand():
    seen = motion.frames(PROGRAM)
    assert [scene.objects[0].x for scene in seen] == pytest.approx(
        [0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6]
    )
    assert [scene.objects[1].x for scene in seen] == [0.6] * 6 + [motion.AWAY] * 2
    assert (RIGHT.verb, GONE.verb) == ("right", "disappears")
    assert motion.reverse(PROGRAM).events[0].verb == "left"
    assert motion.reverse(PROGRAM).events[1] == Event("there", 1, 1, 2, 0.0, 1.0)


def test_reversal_and_the_other_order_undo_themselves():
    for program in programs():
        back = motion.reverse(program)
        assert motion.reverse(back) == program
        assert motion.frames(back) == motion.frames(program)[::-1]
        assert [event.verb for event in back.events] == [
            motion.OPPOSITE[event.verb] for event in program.events
        ]
        swapped = motion.swap_order(program)
        assert motion.swap_order(swapped) == program
        for event, other in zip(program.events, swapped.events, strict=True):
            assert event.verb == other.verb and event.end - event.start == other.end - other.start
        assert motion.program_from_dict(program.to_dict()) == program


def test_a_reversed_clip_has_the_same_images_backwards():
    """To the pixel: the clip has one seed, so background, light and grain stand still."""
    for program in programs()[::10]:
        images = drawing.draw_frames(motion.frames(program), side=64)
        back = drawing.draw_frames(motion.frames(motion.reverse(program)), side=64)
        for one, other in zip(images, back[::-1], strict=True):
            assert np.array_equal(one, other)


def test_frames_drawn_together_are_frames_drawn_alone():
    program = dataclasses.replace(PROGRAM, noise=2)
    scenes = motion.frames(program)
    together = drawing.draw_frames(scenes, side=64)
    for image, scene in zip(together, scenes, strict=True):
        assert np.array_equal(image, drawing.draw(scene, side=64))
    assert not np.array_equal(together[0], together[LAST])


def test_what_is_not_there_leaves_no_paint():
    away = dataclasses.replace(SQUARE, x=motion.AWAY)
    plain = motion.Scene([CIRCLE], seed=3)
    # Noise 0 draws nothing after the shades, so a last object changes no other pixel.
    with_it = motion.Scene([CIRCLE, away], seed=3)
    assert np.array_equal(drawing.draw(plain, 64), drawing.draw(with_it, 64))


@pytest.mark.parametrize(
    "first, second, word",
    [
        ((0, 4), (2, 6), "before"),  # midpoints 2 and 4
        ((2, 6), (0, 4), "after"),
        ((0, 4), (1, 6), None),  # midpoints 2 and 3.5: no word is clear
        ((0, 4), (1, 4), "while"),  # midpoints 2 and 2.5
        ((0, 4), (0, 4), "while"),
    ],
)
def test_orders(first, second, word):
    events = [Event("x", 0, *first, 0.2, 0.6), Event("y", 1, *second, 0.2, 0.6)]
    assert motion.order(*events) == word


def test_stops_and_starts():
    assert motion.stops(PROGRAM, RIGHT) and not motion.starts(PROGRAM, RIGHT)
    assert not motion.stops(PROGRAM, GONE)
    back = motion.reverse(PROGRAM)
    assert motion.starts(back, back.events[0]) and not motion.stops(back, back.events[0])
    for program in programs():
        back = motion.reverse(program)
        for event, other in zip(program.events, back.events, strict=True):
            assert motion.stops(program, event) == motion.starts(back, other)
    assert all(0 <= event.start < event.end < FRAMES for event in PROGRAM.events)
