"""What frozen features know: the ceiling of a captioner that reads nothing else (floor 2).

A small attention probe is told where an object is, looks at the patches, and names the object's size, fill, colour and
shape. It is trained on the train split and scored on others. A captioner must find the objects as well, so per
attribute it can hardly do better; where the probe fails, the encoder is the limit and no decoder mends it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from caption import writer
from caption.data import CaptionData
from worlds.scenes import CLASSES


class Probe(nn.Module):
    """(B, 2) where in 0..1 and patches (B, P, width) -> logits of each attribute, (B, classes)."""

    def __init__(self, width: int, hidden: int = 192):
        super().__init__()
        self.where = nn.Sequential(nn.Linear(2, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.patch, self.norm = nn.Linear(width, hidden), nn.LayerNorm(hidden)
        self.look = nn.MultiheadAttention(hidden, 4, batch_first=True)
        self.body = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU())
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * hidden, len(values)) for name, values in CLASSES.items()}
        )

    def forward(self, where: Tensor, patches: Tensor) -> dict[str, Tensor]:
        query, seen = self.where(where)[:, None], self.norm(self.patch(patches))
        x = self.body((query + self.look(query, seen, seen, need_weights=False)[0])[:, 0])
        return {name: head(x) for name, head in self.heads.items()}


def objects(data: CaptionData) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Every object of a split: its image's number (N,), where it is (N, 2) float32, its classes (N,) int64 each."""
    found = [
        (row, one) for row, record in enumerate(data.records) for one in record["scene"]["objects"]
    ]
    where = np.array([[one["x"], one["y"]] for _, one in found], np.float32)
    return (
        np.array([row for row, _ in found]),
        where,
        {
            name: np.array([values.index(one[name]) for _, one in found])
            for name, values in CLASSES.items()
        },
    )


def ceiling(
    folder, splits: list[str], steps: int, *, batch_size: int = 256, seed: int = 0, device="cpu"
) -> dict[str, dict[str, float]]:
    """Train the probe for so many steps; the share of objects of each split whose attributes it names rightly."""
    data = CaptionData(folder, "train")
    statistics = writer.feature_statistics(data.features, data.rows)
    torch.manual_seed(seed)
    probe, order = Probe(data.encoder["width"]).to(device), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(probe.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    rows, where, classes = objects(data)
    see = lambda data, rows: writer.standardise(data.features_of(rows), statistics, device)
    for _ in tqdm(range(steps), unit="step", desc="probe"):
        some = order.integers(len(rows), size=batch_size)
        logits = probe(torch.from_numpy(where[some]).to(device), see(data, rows[some]))
        loss = sum(
            F.cross_entropy(logits[name], torch.from_numpy(classes[name][some]).to(device))
            for name in CLASSES
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    result = {}
    with torch.no_grad():
        for split in splits:
            held_out = CaptionData(folder, split)
            rows, where, classes = objects(held_out)
            hits = {name: 0 for name in CLASSES}
            for part in np.array_split(np.arange(len(rows)), -(-len(rows) // batch_size)):
                logits = probe(torch.from_numpy(where[part]).to(device), see(held_out, rows[part]))
                for name in CLASSES:
                    hits[name] += int(
                        (logits[name].argmax(-1).cpu().numpy() == classes[name][part]).sum()
                    )
            result[split] = {
                f"{name}_accuracy": count / len(rows) for name, count in hits.items()
            } | {"objects": len(rows)}
    return result
