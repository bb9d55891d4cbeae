"""How true captions of drawn scenes are: every claim is judged against the scene."""

from base import metrics
from worlds import judge
from worlds.scenes import scene_from_dict

# What `worlds.judge.judge` says of a caption -> the name of the figure.
SHARES = {"truthful": "truthful", "exact": "set_exact", "grammatical": "grammatical"}
RATIOS = {"recall": "object_recall", "hallucinated": "hallucination"}


def truth(texts: list[str], records: list[dict]) -> dict:
    """Figures of captions, each caption judged against the scene of its record.

    Returns shares from 0 to 1 with 95% intervals over images (Wilson's): truthful, set_exact,
    grammatical, and {claim}_accuracy for each kind of claim that was made; object_recall,
    hallucination and distinct_captions without intervals; and the number of images.
    """
    judged = []
    for text, record in zip(texts, records, strict=True):
        judged.append(judge.judge(text, scene_from_dict(record["scene"])))
    count = len(judged)
    result: dict = {"images": count}
    for key, name in SHARES.items():
        right = sum(verdict[key] for verdict in judged)
        result[name] = right / count
        result[f"{name}_ci95"] = metrics.share_interval(right, count)
    tallies = [verdict["tallies"] for verdict in judged]
    for claim in dict.fromkeys(claim for tally in tallies for claim in tally):
        right, total = summed([tally.get(claim, (0, 0)) for tally in tallies])
        result[f"{claim}_accuracy"] = right / total
        result[f"{claim}_accuracy_ci95"] = metrics.share_interval(right, total)
    for key, name in RATIOS.items():
        right, total = summed([verdict[key] for verdict in judged])
        result[name] = right / max(1, total)  # captions may name no object at all
    result["distinct_captions"] = len(set(texts)) / count
    return result


def summed(pairs: list) -> tuple[int, int]:
    """The sums of (right, total) pairs."""
    return sum(right for right, _ in pairs), sum(total for _, total in pairs)
