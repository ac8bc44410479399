"""What LeRobot does around the policy: batches, no normalisation, for the bundle holds its own."""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME

from lerobot_policy_quickstudy.configuration_quickstudy import QuickstudyConfig


def make_quickstudy_pre_post_processors(
    config: QuickstudyConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """The steps before and after the policy; statistics of a data set are of no use here."""
    before = [
        RenameObservationsProcessorStep(rename_map={}), AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(device=config.device),
    ]  # fmt: skip
    return (
        PolicyProcessorPipeline[dict[str, Any], dict[str, Any]](steps=before, name=POLICY_PREPROCESSOR_DEFAULT_NAME),
        PolicyProcessorPipeline[PolicyAction, PolicyAction](
            steps=[DeviceProcessorStep(device="cpu")], name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
            to_transition=policy_action_to_transition, to_output=transition_to_policy_action,
        ),
    )  # fmt: skip
