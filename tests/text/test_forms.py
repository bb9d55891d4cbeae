"""The three forms of a document with blanks, by hand."""

import numpy as np

from text.forms import FORMS, Pair, arrange


class Ids:
    eos, unk, pad, bos, mask = 90, 91, 92, 93, 94


def test_the_forms_by_hand():
    one = lambda *ids: np.array(ids)
    two = Pair([one(93, 1, 2), one(5, 6), one(9, 90)], [one(3, 4), one(7, 8)])
    assert two.whole().tolist() == [93, 1, 2, 3, 4, 5, 6, 7, 8, 9, 90]
    rows = {form: arrange(two, form, Ids) for form in FORMS}
    assert rows["context"].ids.tolist() == two.whole().tolist() and rows["context"].free.nonzero()[
        0
    ].tolist() == [3, 4, 7, 8]
    assert rows["cross"].ids.tolist() == [93, 3, 4, 93, 7, 8, 90] and rows["cross"].free.nonzero()[
        0
    ].tolist() == [1, 2, 4, 5]
    assert rows["cross"].condition.tolist() == [93, 1, 2, 94, 5, 6, 94, 9, 90] and not len(
        rows["context"].condition
    )
    assert rows["ar"].ids.tolist() == [93, 5, 6, 94, 9, 93, 1, 2, 3, 4, 90, 7, 8, 90]
    assert rows["ar"].ids[rows["ar"].free].tolist() == [3, 4, 90, 7, 8, 90]
    story = Pair([one(93, 1), one(90)], [one(2, 3)], "continue")
    assert arrange(story, "ar", Ids).ids.tolist() == [
        93,
        1,
        2,
        3,
        90,
    ]  # nothing behind the blank: a story as ever
    middle = Pair([one(93, 1), one(8, 90)], [one(2, 3)], "middle")
    assert arrange(middle, "ar", Ids).ids.tolist() == [
        93,
        8,
        93,
        1,
        2,
        3,
        90,
    ]  # the ending, then the beginning
