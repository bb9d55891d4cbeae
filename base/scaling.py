"""Between a robot's own units and the [-1, 1] of a policy. The numbers travel in the checkpoint.

action   the 1st and 99th percentile of the demonstrations become -1 and 1; what is beyond is cut
state    mean 0 and deviation 1; the hand's place stays in metres

An arm whose actions are joints may learn chunks as `Offsets`: how far each action is from the
joints where the chunk begins. A step is then a few degrees, and its bins are fractions of a degree.
"""

from dataclasses import dataclass

import numpy as np

from base.errors import UserError

SMALLEST = 1e-4  # a narrower range is a number that never changes


@dataclass
class Scaling:
    """low, high: (A,) of the actions. mean, deviation: (S,) of the state. float32."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def none(cls, actions: int, state: int) -> "Scaling":
        """Units stay as they are."""
        one, nothing = np.ones(actions, np.float32), np.zeros(state, np.float32)
        return cls(-one, one, nothing, np.ones(state, np.float32))

    @classmethod
    def measured(cls, actions: np.ndarray, states: np.ndarray) -> "Scaling":
        """From all frames: actions (N, A), states (N, S)."""
        low, high = np.quantile(actions, [0.01, 0.99], axis=0).astype(np.float32)
        still = high - low < SMALLEST
        low, high = np.where(still, low - 1, low), np.where(still, high + 1, high)
        deviation = states.std(0)
        deviation = np.where(deviation < SMALLEST, 1, deviation)
        mean = states.mean(0)
        return cls(low, high, mean.astype(np.float32), deviation.astype(np.float32))

    @classmethod
    def from_dict(cls, values: dict) -> "Scaling":
        """The scaling that `to_dict` wrote."""
        return cls(**{name: np.array(row, np.float32) for name, row in values.items()})

    def to_dict(self) -> dict[str, list[float]]:
        return {name: row.tolist() for name, row in vars(self).items()}

    def shrink(self, actions: np.ndarray) -> np.ndarray:
        """Actions (.., A) in the robot's units -> [-1, 1]."""
        middle = (self.high + self.low) / 2
        return np.clip((actions - middle) / ((self.high - self.low) / 2), -1, 1)

    def restore(self, actions: np.ndarray) -> np.ndarray:
        """[-1, 1] -> the robot's units."""
        return (self.high + self.low) / 2 + actions * (self.high - self.low) / 2

    def plain(self, states: np.ndarray) -> np.ndarray:
        """States (.., S) with mean 0 and deviation 1."""
        return (states - self.mean) / self.deviation

    def check(self, actions: int, state: int) -> None:
        """Raise UserError unless actions and states have these widths."""
        own = (len(self.low), len(self.mean))
        if own != (actions, state):
            raise UserError(
                f"actions of {actions} numbers and states of {state}",
                f"{own[0]} and {own[1]}, which the checkpoint was trained on",
                "name a robot, or a dataset, of the checkpoint's kind",
            )


@dataclass
class Offsets:
    """Chunks of absolute joints, as seen from the joints where a chunk begins.

    low, high: (T, A) float32, of the offsets of each step. The last number, the gripper, is
    absolute. The first A numbers of a state are the joints.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def measured(cls, chunks: np.ndarray, states: np.ndarray) -> "Offsets":
        """From chunks (N, T, A), which begin at states (N, S): all but the outer percents."""
        away = chunks - start_of(states, chunks.shape[-1])
        low, high = np.quantile(away, [0.01, 0.99], axis=0).astype(np.float32)
        still = high - low < SMALLEST
        return cls(np.where(still, low - 1, low), np.where(still, high + 1, high))

    @classmethod
    def from_dict(cls, values: dict) -> "Offsets":
        """The offsets that `to_dict` wrote."""
        return cls(**{name: np.array(rows, np.float32) for name, rows in values.items()})

    def to_dict(self) -> dict[str, list]:
        return {name: rows.tolist() for name, rows in vars(self).items()}

    def shrink(self, actions: np.ndarray, states: np.ndarray) -> np.ndarray:
        """The first t <= T actions (.., t, A) after states (.., S) -> [-1, 1]."""
        steps = actions.shape[-2]
        low, high = self.low[:steps], self.high[:steps]
        away = actions - start_of(states, actions.shape[-1])
        return np.clip(2 * (away - low) / (high - low) - 1, -1, 1)

    def restore(self, shrunk: np.ndarray, states: np.ndarray) -> np.ndarray:
        """The inverse of `shrink`: the robot's units."""
        steps = shrunk.shape[-2]
        low, high = self.low[:steps], self.high[:steps]
        return low + (shrunk + 1) / 2 * (high - low) + start_of(states, shrunk.shape[-1])

    def told(self, prefix: np.ndarray, scaling: Scaling, state: np.ndarray) -> np.ndarray:
        """Committed actions (n, A) in [-1, 1] of the robot -> as the network is given them."""
        return self.shrink(scaling.restore(prefix), state).astype(np.float32)

    def meant(self, made: np.ndarray, scaling: Scaling, state: np.ndarray) -> np.ndarray:
        """A chunk (T, A) of the network after a state -> actions in [-1, 1] of the robot."""
        return scaling.shrink(self.restore(made, state)).astype(np.float32)


def start_of(states: np.ndarray, actions: int) -> np.ndarray:
    """The joints of states (.., S), and 0 for the gripper: (.., 1, A)."""
    start = np.array(states[..., None, :actions], np.float32)
    start[..., -1] = 0
    return start
