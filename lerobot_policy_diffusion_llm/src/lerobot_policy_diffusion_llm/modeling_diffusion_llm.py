"""A policy of diffusion-llm with the methods that LeRobot calls. It acts; it does not train.

It needs a checkout of diffusion-llm on PYTHONPATH. Observations are read as serve_policy.py reads
them (base/incoming.py): LeRobot's names, images of any size, the state in the robot's units.
"""

from collections import deque

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy

from base.errors import UserError
from base.facts import Facts, of_maker
from base.incoming import Reader

from .configuration_diffusion_llm import DiffusionLlmConfig

# Axes of a batch: LeRobot's have the batch first. Images of a batch are known to base/incoming.py.
ROWS = {"observation.state": 2, "observation.environment_state": 3, "observation.kinds": 3}
SEEN = ("observation.", "task")  # beginnings of the names that are read


def open_maker(config: DiffusionLlmConfig) -> tuple:
    """A `base.driving.ChunkMaker`, and its facts."""
    if config.server is not None:
        from base.remote import Calling, RemoteMaker

        maker = RemoteMaker(Calling(server=config.server, server_key=config.server_key))
        return maker, maker.facts
    from base.policy_runner import BundleMaker

    maker = BundleMaker(config.bundle)
    return maker, of_maker(maker, int(maker.facts["model"]["grounder"]["kinds"]))


class DiffusionLlmPolicy(PreTrainedPolicy):
    config_class = DiffusionLlmConfig
    name = "diffusion_llm"

    def __init__(self, config: DiffusionLlmConfig, **ignored):
        super().__init__(config)
        self.maker, self.facts = open_maker(config)
        self.facts: Facts
        if self.facts.frames > 1 or not 0 < config.n_action_steps <= self.facts.length:
            raise UserError(
                f"a policy of {self.facts.frames} frames, and n_action_steps "
                f"{config.n_action_steps}",
                f"a single frame, and 1 to {self.facts.length} steps",
                "choose another policy or n_action_steps",
            )
        self.reader = Reader(self.facts, {})
        # LeRobot asks where the parameters are. There are none here.
        self.place = torch.nn.Parameter(torch.zeros(0), requires_grad=False)
        self.reset()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path, *, config=None, **more):
        """From a folder with LeRobot's config.json, which names the bundle or the server."""
        if config is None:
            # The base class reads `type`, which chooses the class of the configuration.
            config = PreTrainedConfig.from_pretrained(pretrained_name_or_path)
        return cls(config).eval()

    def reset(self) -> None:
        """A new episode begins with the next observation."""
        self.left: deque = deque()
        self.text: str | None = None

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict, **ignored) -> torch.Tensor:
        """(1, T, A) in the robot's units. Raises UserError for a batch of more than one."""
        message = {}
        for name, value in batch.items():
            if name.startswith(SEEN):
                array = isinstance(value, torch.Tensor)
                message[name] = value.detach().cpu().numpy() if array else value
        for name, wide in ROWS.items():
            value = message.get(name)
            if value is None or value.ndim != wide:
                continue
            if len(value) != 1:
                raise UserError(f"a batch of {len(value)}", "a batch of one", "use one environment")
            message[name] = value[0]
        asked = self.reader.read(message)
        text = asked.text or self.text
        if text is None:
            raise UserError("an observation without a task", "the order, as text", "give a task")
        if text != self.text:
            self.maker.begin(text, 0)
            self.text = text
        made = self.maker.make(asked.seen, [], None)
        return torch.from_numpy(self.facts.scaling.restore(made.actions))[None].float()

    @torch.no_grad()
    def select_action(self, batch: dict, **ignored) -> torch.Tensor:
        """The next action, (1, A), of a chunk of which `n_action_steps` are done."""
        if not self.left:
            chunk = self.predict_action_chunk(batch)
            self.left.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self.left.popleft()

    def get_optim_params(self) -> dict:
        raise NotImplementedError("train with train_policy.py")

    def forward(self, batch: dict):
        raise NotImplementedError("train with train_policy.py")
