"""Before and after the policy nothing is scaled: the policy reads and gives the robot's units."""

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyProcessorPipeline,
)
from lerobot.processor.converters import (
    policy_action_to_transition,
    transition_to_policy_action,
)


def make_diffusion_llm_pre_post_processors(config, dataset_stats=None):
    """The two pipelines, by the name that LeRobot looks for."""
    before = PolicyProcessorPipeline(
        steps=[AddBatchDimensionProcessorStep()], name="policy_preprocessor"
    )
    after = PolicyProcessorPipeline(
        steps=[DeviceProcessorStep(device="cpu")],
        name="policy_postprocessor",
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )
    return before, after
