"""Programs of each split: what is held out never occurs in training, and everything can be seen."""

import itertools

from worlds import motion
from worlds import motion_sampling as sampling
from worlds.motion import LAST, OPPOSITE, VERBS
from worlds.scenes import SHAPES


def of(split: str, count: int = 30, seed: int = 1) -> list[motion.Program]:
    return [sampling.sample(seed, split, number) for number in range(count)]


def held(program) -> tuple[bool, bool]:
    """Whether a program has a held-out verb of a shape, and a held-out order."""
    verb = sampling.has_held_verb(program, program.events)
    return verb, sampling.has_held_order(program)


def test_the_held_out_is_held_out():
    for split in ("train", "val", "held_count", "swap_order", "swap_time"):
        assert {held(program) for program in of(split, 12)} == {(False, False)}, split
    assert {held(program) for program in of("held_verb", 12)} == {(True, False)}
    assert {held(program) for program in of("held_order", 12)} == {(False, True)}
    assert {len(program.events) for program in of("train")} == {1, 2}
    assert {len(program.events) for program in of("held_count", 8)} == {3}


def test_a_part_of_each_kind_is_held_out():
    verbs = {(verb, shape) for verb in VERBS for shape in SHAPES if sampling.held_verb(verb, shape)}
    assert {verb for verb, _ in verbs} == set(VERBS) and {s for _, s in verbs} == set(SHAPES)
    pairs = list(itertools.product(VERBS, VERBS))
    orders = {pair for pair in pairs if sampling.held_order(*pair)}
    assert 0.1 < len(orders) / len(pairs) < 0.3
    assert all(pair[::-1] not in orders for pair in orders)  # training shows the other order
    for first, second in pairs:  # a reversed clip is held out exactly where the clip is
        back = (OPPOSITE[second], OPPOSITE[first])
        assert ((first, second) in orders) == (back in orders)
    for verb, shape in itertools.product(VERBS, SHAPES):
        assert sampling.held_verb(verb, shape) == sampling.held_verb(OPPOSITE[verb], shape)


def test_a_program_is_a_function_of_its_number():
    again = of("train", 5)
    assert again == of("train", 5) and again != of("train", 5, seed=2)
    assert len({program.seed for program in of("train")}) == 30
    # Whatever was drawn before.
    assert sampling.sample(1, "train", 4) == again[4]


def test_everything_can_be_seen():
    verbs = set()
    for program in of("train", 100):
        assert sampling.is_clear(program) and sampling.is_clear(motion.reverse(program))
        colours = {item.colour for item in program.objects}
        shapes = {item.shape for item in program.objects}
        assert len(colours) == len(shapes) == len(program.objects)
        for event in program.events:
            verbs.add(event.verb)
            if event.part in "xy":
                assert abs(event.last - event.first) > 0.2
            if event.part == "there":  # there, and away, for two frames at least
                assert event.end == event.start + 1 and 1 <= event.start <= LAST - 2
            if event.verb == "passes":
                gap = [distance(program, event, frame) for frame in (event.start, event.end)]
                middle = (event.start + event.end) // 2
                assert min(gap) > 1 and distance(program, event, middle) < 1
    assert verbs == set(VERBS)


def distance(program, event, frame: int) -> float:
    """Between what passes and what is passed over, in sums of their radii."""
    one = motion.object_at(program, event.thing, frame)
    other = motion.object_at(program, event.other, frame)
    return ((one.x - other.x) ** 2 + (one.y - other.y) ** 2) ** 0.5 / (one.radius + other.radius)


def test_pairs():
    for number in range(0, 12, 2):
        one, mate = (sampling.sample(1, "swap_order", number + i) for i in (0, 1))
        assert mate == motion.swap_order(one) and {
            motion.order(*p.events) for p in (one, mate)
        } == {
            "before",
            "after",
        }
        one, mate = (sampling.sample(1, "swap_time", number + i) for i in (0, 1))
        assert mate == motion.reverse(one)
