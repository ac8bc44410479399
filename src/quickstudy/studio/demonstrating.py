"""How a person moves a robot by a handle: what a handle means as an action, and which steps are a demonstration.

The actions are those of the family's action space, so that a recorded demonstration teaches what an expert's would. The
robot follows the handle as the expert follows its aim: by a part of the remaining way in each step.
"""

from dataclasses import dataclass, field

import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping.scene import rotate, wrapped
from quickstudy.families.grasping.vector_env import MAX_STEP, MAX_TURN, GraspingVectorEnv
from quickstudy.families.navigation.planner import Expert, plan
from quickstudy.families.navigation.vector_env import NavigationVectorEnv, body

FOLLOW = 0.3
"""Part of the way to the handle that the hand strives for in one step."""
AT_REST = 0.03
"""An action of less than this, of a range of -1..1, moves nothing that could be seen."""
CLOSING = 10
"""Steps that the fingers need to close or to open, which belong to a demonstration although the hand rests."""
LONGEST = 600
"""Steps of a demonstration, of which pauses are no part."""


def hand_action(env: GraspingVectorEnv, index: int, place: np.ndarray, yaw: float, grip: float) -> np.ndarray:
    """The action [5] that takes the hand of one environment towards a handle.

    Args:
        place: of the handle [3], where the finger tips shall go, metres.
        yaw: of the handle, radians.
        grip: from -1, open, to 1, closed.
    """
    step = FOLLOW * (place - env.target[index]) / MAX_STEP
    step[:2] = rotate(step[:2], -env.tag_yaw()[index])
    step /= max(1.0, float(np.abs(step).max()))
    turn = np.clip(FOLLOW * wrapped(np.array(yaw - env.target_yaw[index])) / MAX_TURN, -1.0, 1.0)
    return np.array([*step, turn, grip], dtype=np.float32)


def drive_action(env: NavigationVectorEnv, index: int, place: np.ndarray) -> np.ndarray:
    """The action [2] that takes the robot of one environment towards a handle [2], around what is in its way."""
    task = env.tasks[index // env.episodes_per_task]
    if np.linalg.norm(env.believed[index, :2] - place) < 0.08:
        return np.zeros(2, np.float32)
    route = plan(task.parameters["walls"], np.round(place, 1))
    expert = Expert([route], [list(place)], [body(task)])
    seen = env.observations.reshape(env.size, -1)[index]
    return np.asarray(expert(seen[None, None])[0, 0], dtype=np.float32)


@dataclass
class Recorder:
    """The steps of a demonstration as it is shown; pauses are left out, because a learner that is shown rest rests.

    Attributes:
        grips: whether the action's last number opens and closes a gripper.
        observations, actions: of the steps so far.
    """

    grips: bool
    observations: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    _since_grip: int = CLOSING
    _grip: float = -1.0

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def full(self) -> bool:
        """Whether it is as long as a demonstration may be."""
        return len(self) >= LONGEST

    def add(self, observation: np.ndarray, action: np.ndarray) -> bool:
        """Takes a step unless the robot rests; says whether it was taken."""
        moving = action
        if self.grips:
            moving = action[:-1]
            self._since_grip = 0 if action[-1] != self._grip else self._since_grip + 1
            self._grip = float(action[-1])
        if self.full or (float(np.abs(moving).max()) < AT_REST and self._since_grip >= (CLOSING if self.grips else 0)):
            return False
        self.observations.append(np.array(observation, np.float32))
        self.actions.append(np.array(action, np.float32))
        return True

    def demonstration(self) -> Demonstration:
        """What was shown.

        Raises:
            QuickstudyError: nothing was.
        """
        if not self.actions:
            raise QuickstudyError("Nothing was shown yet: the robot has not moved.")
        return Demonstration(np.stack(self.observations), np.stack(self.actions))
