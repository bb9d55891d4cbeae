"""The policy for LeRobot: with a stand-in of LeRobot's classes, or with LeRobot if it is there."""

import dataclasses
import importlib
import sys
import types

import numpy as np
import pytest
import torch

pytest.importorskip("msgpack", reason="pip install -r requirements-server.txt")
pytest.importorskip("websockets", reason="pip install -r requirements-server.txt")

from base.errors import UserError
from base.scaling import Scaling
from tests.making.served import SEEN, STATE, facts_of, served
from tests.making.sources import ROOT

PLUGIN = "lerobot_policy_diffusion_llm"


@dataclasses.dataclass
class Config:
    """Stands in for LeRobot's PreTrainedConfig."""

    device: str | None = None
    known = {}

    def __post_init__(self):
        pass

    @classmethod
    def register_subclass(cls, name):
        def keep(kind):
            cls.known[name] = kind
            return kind

        return keep


class Policy(torch.nn.Module):
    """Stands in for LeRobot's PreTrainedPolicy."""

    def __init__(self, config):
        super().__init__()
        self.config = config


@pytest.fixture
def plugin(monkeypatch):
    """The plug-in's modules of configurations and of policies."""
    for name in ("lerobot", "lerobot.configs", "lerobot.policies"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name, part, value in (
        ("lerobot.configs.policies", "PreTrainedConfig", Config),
        ("lerobot.policies.pretrained", "PreTrainedPolicy", Policy),
    ):
        module = types.ModuleType(name)
        setattr(module, part, value)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(ROOT / PLUGIN / "src"))
    for name in [name for name in sys.modules if name.startswith(PLUGIN)]:
        monkeypatch.delitem(sys.modules, name)
    yield importlib.import_module(f"{PLUGIN}.modeling_diffusion_llm")
    for name in [name for name in sys.modules if name.startswith(PLUGIN)]:
        del sys.modules[name]


def batch(text="go"):
    return {
        "observation.state": torch.from_numpy(SEEN["state"])[None],
        "observation.images.front": torch.rand(1, 3, 5, 4),
        "task": [text],
        "action": torch.zeros(1, 4),
    }


def test_it_acts_chunk_by_chunk(plugin):
    facts = facts_of(sees="pixels", cameras=["front"])
    with served(facts) as (_, address):
        config = Config.known["diffusion_llm"](server=address, n_action_steps=2)
        policy = plugin.DiffusionLlmPolicy(config)
        chunk = policy.predict_action_chunk(batch())
        assert chunk.shape == (1, 6, 4) and torch.allclose(chunk, torch.tensor(2 + 4 * 0.028))
        actions = [policy.select_action(batch()) for _ in range(5)]
        assert all(action.shape == (1, 4) for action in actions) and len(policy.left) == 1
        policy.reset()
        assert not policy.left and policy.text is None
        policy.maker.close()


def test_what_it_cannot_do_is_said(plugin):
    make = Config.known["diffusion_llm"]
    with pytest.raises(ValueError, match="one of the two"):
        make()
    with served(facts_of(scaling=Scaling.none(4, STATE))) as (_, address):
        with pytest.raises(UserError, match="1 to 6 steps"):
            plugin.DiffusionLlmPolicy(make(server=address, n_action_steps=7))
        policy = plugin.DiffusionLlmPolicy(make(server=address))
        with pytest.raises(UserError, match="without things"):
            policy.select_action(batch())
        many = {"observation.state": torch.zeros(2, STATE), "task": ["a", "b"]}
        with pytest.raises(UserError, match="batch of one"):
            policy.select_action(many)
        with pytest.raises(NotImplementedError):
            policy.forward(batch())
        policy.maker.close()
    assert np.isfinite(chunk_of(plugin, make)).all()


def chunk_of(plugin, make):
    """A chunk of a policy of lists, told by LeRobot's names."""
    with served() as (_, address):
        policy = plugin.DiffusionLlmPolicy(make(server=address))
        told = {
            "observation.state": torch.from_numpy(SEEN["state"])[None],
            "observation.environment_state": torch.from_numpy(SEEN["things"])[None],
            "observation.kinds": torch.from_numpy(SEEN["kinds"])[None],
            "task": ["go"],
        }
        chunk = policy.predict_action_chunk(told).numpy()
        policy.maker.close()
    return chunk
