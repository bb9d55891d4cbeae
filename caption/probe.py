"""What frozen features know: the ceiling of a captioner that reads nothing else.

A small attention probe is told where an object is. It looks at the patches and names the object's
size, fill, colour and shape. It is trained on the train split and scored on others. A captioner
must find the objects as well, so it can hardly do better per attribute. Where the probe fails,
the encoder is the limit, and no decoder helps.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caption import writer
from caption.data import CaptionData
from loop import progress
from worlds.scenes import CLASSES


class Probe(nn.Module):
    """Attributes of an object from the patches, asked by its position.

    where (B, 2) in 0..1 and features (B, P, width) -> {attribute: logits (B, classes)}.
    """

    def __init__(self, width: int, hidden: int = 192):
        super().__init__()
        self.where = nn.Sequential(nn.Linear(2, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.patch, self.norm = nn.Linear(width, hidden), nn.LayerNorm(hidden)
        self.look = nn.MultiheadAttention(hidden, 4, batch_first=True)
        self.body = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU())
        heads = {name: nn.Linear(2 * hidden, len(values)) for name, values in CLASSES.items()}
        self.heads = nn.ModuleDict(heads)

    def forward(self, where: Tensor, features: Tensor) -> dict[str, Tensor]:
        # The position asks, the patches answer: attention finds the patches of the object.
        query = self.where(where)[:, None]  # (B, 1, hidden)
        patches = self.norm(self.patch(features))  # (B, P, hidden)
        attended, _ = self.look(query, patches, patches, need_weights=False)
        x = self.body((query + attended)[:, 0])  # (B, 2·hidden)
        return {name: head(x) for name, head in self.heads.items()}


class Objects:
    """Every object of a split of drawn scenes, and its image's features.

    image: (N,) image numbers. where: (N, 2) float32 in 0..1. classes: for each attribute, (N,)
    int64.
    """

    def __init__(self, data: CaptionData, statistics: dict, device):
        self.data, self.statistics, self.device = data, statistics, device
        objects, images = [], []
        for number, record in enumerate(data.records):
            objects += record["scene"]["objects"]
            images += [number] * len(record["scene"]["objects"])
        self.image = np.array(images)
        self.where = np.array([[item["x"], item["y"]] for item in objects], np.float32)
        self.classes = {}
        for name, values in CLASSES.items():
            self.classes[name] = np.array([values.index(item[name]) for item in objects])

    def __len__(self) -> int:
        return len(self.image)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """What the probe reads of objects `rows` (B,): where (B, 2), features (B, P, width)."""
        where = torch.from_numpy(self.where[rows]).to(self.device)
        features = self.data.features_of(self.image[rows])
        return where, writer.standardise(features, self.statistics, self.device)


def ceiling(
    folder, splits: list[str], steps: int, *, batch_size: int = 256, seed: int = 0, device="cpu"
) -> dict[str, dict[str, float]]:
    """Train the probe for `steps` steps and score it on `splits`.

    Returns {split: {attribute_accuracy: share of its objects, ..., objects: how many there are}}.
    """
    train = CaptionData(folder, "train")
    # The same standardised features as a captioner reads, place code included.
    statistics = writer.feature_statistics(train.features, train.rows)
    torch.manual_seed(seed)
    probe = Probe(train.encoder["width"]).to(device)
    fit(probe, Objects(train, statistics, device), steps, batch_size, seed)
    result = {}
    for split in splits:
        held_out = Objects(CaptionData(folder, split), statistics, device)
        result[split] = accuracy(probe, held_out, batch_size)
    return result


def fit(probe: Probe, objects: Objects, steps: int, batch_size: int, seed: int) -> None:
    """Train the probe on objects drawn at random."""
    rng = np.random.default_rng(seed)
    # Plain AdamW with one cycle: the probe is small, and its figure is a ceiling, not a record.
    optimizer = torch.optim.AdamW(probe.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in progress.bar(range(steps), "probe", unit="step"):
        rows = rng.integers(len(objects), size=batch_size)
        logits = probe(*objects.batch(rows))
        losses = []
        for name, classes in objects.classes.items():
            target = torch.from_numpy(classes[rows]).to(objects.device)
            losses.append(F.cross_entropy(logits[name], target))
        loss = sum(losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(probe: Probe, objects: Objects, batch_size: int) -> dict[str, float]:
    """The share of objects whose attribute the probe names rightly, for each attribute."""
    hits = dict.fromkeys(CLASSES, 0)
    for rows in np.array_split(np.arange(len(objects)), -(-len(objects) // batch_size)):
        logits = probe(*objects.batch(rows))
        for name, classes in objects.classes.items():
            guess = logits[name].argmax(-1).cpu().numpy()
            hits[name] += int((guess == classes[rows]).sum())
    result = {f"{name}_accuracy": count / len(objects) for name, count in hits.items()}
    return result | {"objects": len(objects)}
