"""The printed scores of a captioner."""

from caption import score_table


def test_the_table_shows_percent_and_names_its_rows():
    figures = {"truthful": 0.5, "images": 8}
    result = {
        "splits": {"val": figures},
        "objects": {"val": {"1": figures, "2": figures}},
        "blind": {"truthful": 0.25},
        "steps": [{"steps": 1, "calls": 1.0, "truthful": 0.125}],
    }
    rows = score_table.table(result)
    assert rows[0][:3] == ["", "images", "truthful"]
    assert [row[0] for row in rows[1:]] == [
        "val",
        "val, 1 object",
        "val, 2 objects",
        "blind, val",
        "val, 1 step, 1.0 calls",
    ]
    assert [row[2] for row in rows[1:]] == ["50.0", "50.0", "50.0", "25.0", "12.5"]
