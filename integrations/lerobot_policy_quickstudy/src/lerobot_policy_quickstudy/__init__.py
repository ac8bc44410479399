"""Bundles of quickstudy as a policy of LeRobot, which imports this package by its name."""

from lerobot_policy_quickstudy.configuration_quickstudy import QuickstudyConfig
from lerobot_policy_quickstudy.modeling_quickstudy import QuickstudyPolicy
from lerobot_policy_quickstudy.processor_quickstudy import make_quickstudy_pre_post_processors

__all__ = ["QuickstudyConfig", "QuickstudyPolicy", "make_quickstudy_pre_post_processors"]
