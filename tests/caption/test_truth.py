"""How true captions are: counted by hand for a scene of two objects."""

from caption import truth


def test_truth_counts():
    scene = {
        "noise": 0,
        "seed": 0,
        "objects": [
            {
                "shape": "square",
                "colour": "blue",
                "size": "large",
                "fill": "solid",
                "x": 0.7,
                "y": 0.5,
                "radius": 0.2,
                "angle": 0.0,
            },
            {
                "shape": "circle",
                "colour": "red",
                "size": "small",
                "fill": "outlined",
                "x": 0.2,
                "y": 0.5,
                "radius": 0.08,
                "angle": 0.0,
            },
        ],
    }
    texts = [
        "a red circle left of a blue square",
        "a red circle right of a blue square",
        "a red circle",
        "a small green circle",
        "red red",
    ]
    found = truth.truth(texts, [{"scene": scene}] * 5)
    assert (found["truthful"], found["set_exact"], found["grammatical"]) == (0.4, 0.2, 0.8)
    assert (
        found["relation_accuracy"] == 0.5
        and found["colour_accuracy"] == 5 / 6
        and found["shape_accuracy"] == 1.0
        and found["size_accuracy"] == 1.0
    )
    assert (
        found["object_recall"] == 5 / 10
        and found["hallucination"] == 1 / 6
        and found["distinct_captions"] == 1.0
    )
    low, high = found["truthful_ci95"]
    assert low < 0.4 < high
