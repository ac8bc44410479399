"""What the numbers of an action, of an observation and of what is hidden mean in the grasping family."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SUBSTEPS = 20  # of 2.5 ms: control at 20 Hz
HORIZON = 100

ACTION = ("x", "y", "z", "yaw", "grip")
MAX_STEP = 0.0125  # metres a step at full action
MAX_TURN = 0.12  # radians a step at full action
ACTION_NOISE = 0.05  # standard deviation, of the action's range of -1..1

OBSERVATION = ("x", "y", "z", "yaw", "opening", "opening_speed", "touch", "lift", "previous_grip")
OBSERVATION_SCALE = np.array([0.1, 0.1, 0.1, 1.0, 0.1, 0.2, 1.0, 0.1, 1.0])
"""Observations times this are metres, radians, metres a second; touch and grip are fractions."""
OBSERVATION_LIMIT = 10.0
"""Observations are clipped here, far outside what a hand near its object sees."""

HIDDEN = ("grasp_x", "grasp_y", "grasp_height", "grasp_yaw", "grip_width")
HIDDEN_SCALE = np.array([0.04, 0.04, 0.04, 0.7, 0.05])


def hidden(parameters: Mapping[str, Any]) -> np.ndarray:
    """What a task's observations do not show, [hidden] float32, in about unit range: where and how wide to hold."""
    return (np.array([parameters[name] for name in HIDDEN]) / HIDDEN_SCALE).astype(np.float32)
