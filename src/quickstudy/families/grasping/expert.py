"""The expert of the grasping family: a memoryless function of the observation and of what is hidden.

Everything in it is continuous (funnels, gates and clipped proportional laws), because a network must imitate it.
"""

import numpy as np

from quickstudy.families.grasping.spaces import HIDDEN_SCALE, MAX_STEP, MAX_TURN, OBSERVATION_SCALE

SAFE_HEIGHT = 0.125
"""Of the tool above the table, metres: above every object."""
LIFT_GOAL = 0.14
"""Metres that an object is lifted."""
NEAR, FAR = 0.008, 0.035
"""Errors of place (metres) below which the hand is free to descend, and above which it stays at the safe height."""
METRES_PER_RADIAN = 0.04
"""How much an error of yaw counts as one of place."""
CLOSE_WITHIN = 0.014
"""The error (metres, height and yaw included) at which the fingers turn from opening to closing."""
GAIN = 0.22
"""Part of the remaining way that one step takes; the hand lags a little behind its target, so well below 1."""


def expert(observations: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The expert's actions [..., 5] for observations [..., 9] and hidden parameters [..., 5], broadcast."""
    x, y, z, yaw, _, _, touch, lift, _ = np.moveaxis(observations.astype(np.float64) * OBSERVATION_SCALE, -1, 0)
    goal_x, goal_y, goal_z, goal_yaw, _ = np.moveaxis(hidden.astype(np.float64) * HIDDEN_SCALE, -1, 0)
    error = np.stack([goal_x - x, goal_y - y], axis=-1)
    turn = goal_yaw - yaw
    aside = np.hypot(np.linalg.norm(error, axis=-1), METRES_PER_RADIAN * turn)

    # The funnel: how high above the grasp point the hand must be, given how far aside it is.
    height = goal_z + (SAFE_HEIGHT - goal_z) * _smooth((aside - NEAR) / (FAR - NEAR))
    held = _smooth((touch - 0.2) / 0.4)
    reach = CLOSE_WITHIN * (1.0 + 6.0 * held)  # a held object is not let go for a small shift in the hand
    away = np.hypot(aside, 0.7 * (z - goal_z))
    grip = np.clip(3.0 * (1.0 - away / reach), -1.0, 1.0)

    carry = held * _smooth(grip / 0.5)
    up = (1.0 - carry) * GAIN * (height - z) + carry * GAIN * (LIFT_GOAL - lift)
    across = (1.0 - carry)[..., None] * GAIN * error
    action = np.concatenate(
        [across / MAX_STEP, np.stack([up / MAX_STEP, (1.0 - carry) * GAIN * turn / MAX_TURN, grip], axis=-1)], axis=-1
    )
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def _smooth(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)
