"""How true captions of drawn scenes are: every claim is judged against the scene.

Captions of moving scenes are judged against the events of their program.
"""

from base import metrics
from worlds import judge, motion_judge
from worlds.motion import program_from_dict
from worlds.scenes import scene_from_dict

# What `worlds.judge.judge` says of a caption -> the name of the figure.
SHARES = {"truthful": "truthful", "exact": "set_exact", "grammatical": "grammatical"}
RATIOS = {"recall": "object_recall", "hallucinated": "hallucination"}

SCENE_COLUMNS = (
    "truthful",
    "set_exact",
    "grammatical",
    "colour_accuracy",
    "shape_accuracy",
    "size_accuracy",
    "fill_accuracy",
    "place_accuracy",
    "relation_accuracy",
    "count_accuracy",
    "object_recall",
    "hallucination",
)
CLIP_COLUMNS = (
    "truthful",
    "set_exact",
    "grammatical",
    "verb_accuracy",
    "order_accuracy",
    "stop_accuracy",
    "colour_accuracy",
    "shape_accuracy",
    "size_accuracy",
    "fill_accuracy",
    "event_recall",
    "hallucination",
)


def is_drawn(record: dict) -> bool:
    """Whether a record says what its image or its clip shows."""
    return bool(record.get("scene") or record.get("program"))


def columns(figures: dict) -> tuple[str, ...]:
    """The columns of a table of figures from `truth`."""
    return CLIP_COLUMNS if "event_recall" in figures else SCENE_COLUMNS


def verdict(text: str, record: dict) -> dict:
    """What the judge of scenes, or of moving scenes, says of a caption of a drawn record."""
    if record.get("program"):
        return motion_judge.judge(text, program_from_dict(record["program"]))
    return judge.judge(text, scene_from_dict(record["scene"]))


def truth(texts: list[str], records: list[dict]) -> dict:
    """Figures of captions, each caption judged against the scene of its record.

    Returns shares from 0 to 1 with 95% intervals over images (Wilson's): truthful, set_exact,
    grammatical, and {claim}_accuracy for each kind of claim that was made; object_recall,
    hallucination and distinct_captions without intervals; and the number of images. Of clips,
    event_recall stands in the place of object_recall.
    """
    judged = [verdict(text, record) for text, record in zip(texts, records, strict=True)]
    count = len(judged)
    result: dict = {"images": count}
    for key, name in SHARES.items():
        right = sum(each[key] for each in judged)
        result[name] = right / count
        result[f"{name}_ci95"] = metrics.share_interval(right, count)
    tallies = [each["tallies"] for each in judged]
    for claim in dict.fromkeys(claim for tally in tallies for claim in tally):
        right, total = summed([tally.get(claim, (0, 0)) for tally in tallies])
        result[f"{claim}_accuracy"] = right / total
        result[f"{claim}_accuracy_ci95"] = metrics.share_interval(right, total)
    recall = "event_recall" if records[0].get("program") else RATIOS["recall"]
    for key, name in (RATIOS | {"recall": recall}).items():
        right, total = summed([each[key] for each in judged])
        result[name] = right / max(1, total)  # captions may name no object at all
    result["distinct_captions"] = len(set(texts)) / count
    return result


def summed(pairs: list) -> tuple[int, int]:
    """The sums of (right, total) pairs."""
    return sum(right for right, _ in pairs), sum(total for _, total in pairs)
