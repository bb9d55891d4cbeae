"""How true captions of drawn scenes are: every statement is judged against the scene."""

from base import metrics
from worlds import language
from worlds.scenes import scene_from_dict


def truth(texts: list[str], records: list[dict]) -> dict:
    """How true captions are of their scenes: shares with 95% intervals over images (Wilson's for shares)."""
    judged = [
        language.judge(text, scene_from_dict(record["scene"]))
        for text, record in zip(texts, records, strict=True)
    ]
    n = len(judged)
    result = {"images": n}
    for name in ("truthful", "exact", "grammatical"):
        count = sum(one[name] for one in judged)
        result["set_exact" if name == "exact" else name] = count / n
        result[("set_exact" if name == "exact" else name) + "_ci95"] = metrics.share_interval(
            count, n
        )
    for name in dict.fromkeys(key for one in judged for key in one["tallies"]):
        right, total = (sum(one["tallies"].get(name, [0, 0])[i] for one in judged) for i in (0, 1))
        result[f"{name}_accuracy"], result[f"{name}_accuracy_ci95"] = (
            right / total,
            metrics.share_interval(right, total),
        )
    for name, key in (("object_recall", "recall"), ("hallucination", "hallucinated")):
        right, total = (sum(one[key][i] for one in judged) for i in (0, 1))
        result[name] = right / max(1, total)
    result["distinct_captions"] = len(set(texts)) / n
    return result
