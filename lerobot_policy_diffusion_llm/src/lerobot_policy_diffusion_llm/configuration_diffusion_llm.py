"""What LeRobot must know of a policy before it is opened."""

from dataclasses import dataclass

from lerobot.configs.policies import PreTrainedConfig


@PreTrainedConfig.register_subclass("diffusion_llm")
@dataclass
class DiffusionLlmConfig(PreTrainedConfig):
    """bundle: a folder of export_onnx.py. server: the address of serve_policy.py; one of the two.

    server_key: a file with the server's key. n_action_steps: actions of a chunk that are done
    before the next chunk.
    """

    bundle: str | None = None
    server: str | None = None
    server_key: str | None = None
    n_action_steps: int = 4

    def __post_init__(self):
        super().__post_init__()
        if (self.bundle is None) == (self.server is None):
            raise ValueError("found bundle and server; expected one of the two; leave one out")

    @property
    def observation_delta_indices(self):
        return None

    @property
    def action_delta_indices(self):
        return None

    @property
    def reward_delta_indices(self):
        return None

    def validate_features(self) -> None:
        """The policy says itself what it misses, when it sees the first observation."""

    def get_optimizer_preset(self):
        raise NotImplementedError("train with train_policy.py")

    def get_scheduler_preset(self):
        return None
