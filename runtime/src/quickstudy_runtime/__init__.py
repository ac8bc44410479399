"""Runs on a robot what quickstudy learned: `load` a bundle, `adapt` to a demonstration, `act`.

import quickstudy_runtime as runtime

robot = runtime.load("grasping.quickstudy")
skill = robot.adapt(["demonstration.npz"])
action = skill.act(observation)
"""

from quickstudy_runtime.bundle import Bundle, read
from quickstudy_runtime.errors import BundleError, InputError, QuickstudyError
from quickstudy_runtime.guard import Guard
from quickstudy_runtime.robot import Robot, Skill, load
from quickstudy_runtime.version import VERSION

__version__ = VERSION
__all__ = ["Bundle", "BundleError", "Guard", "InputError", "QuickstudyError", "Robot", "Skill", "load", "read"]
