"""Grasping by tries: up to five attempts at an object that nobody showed, each knowing how those before it ended.

Objects, robot and physics are those of `quickstudy.families.grasping.family`, and so is success. A try is one decision:
where the open hand goes down (x, y and height, seen from the tag) and how it is turned. A fixed motion does the rest in
full physics: down, close, lift. So a try costs about 40 control steps of simulation and one of the learner's. The way
from the hand's start to above the object is free and is not simulated.

An episode is one try in two steps. In the first one all observations are alike, and the action is the decision; in the
second the robot sees what came of it, `OBSERVATION`, and its action does nothing. So what happened reaches a learner
through its memory or its adaptation alone. The object is put down anew for every try.

The reward of a try is 0.2 if the fingers closed on something, + 0.3 times how far it was raised, of 10 cm, + 0.5 for
success: all of it known to a real robot by its fingers and by the tag.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from quickstudy.families.base import EPISODE, generators
from quickstudy.families.grasping.arm import Arm
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.families.grasping.scene import rotate, wrapped
from quickstudy.families.grasping.settings import BY_TRIES
from quickstudy.families.grasping.vector_env import (
    LIFT,
    LIFT_GOAL,
    MAX_STEP,
    MAX_TURN,
    OBSERVATION_SCALE,
    SAFE_HEIGHT,
    GraspingVectorEnv,
)
from quickstudy.settings import Changes
from quickstudy.simulation.vector_env import SimulatedVectorEnv, StepResult, VectorEnv
from quickstudy.task import Policy, Symmetry, Task, check_run

DECISION = ("x", "y", "height", "yaw")
MIDDLE = np.array([0.0, 0.0, 0.045, 0.0])
REACH = np.array([0.06, 0.06, 0.035, 1.0])
"""A decision d is the grasp MIDDLE + REACH * d in the tag's frame: metres, metres above the table, radians."""
OBSERVATION = (
    "tried",
    *(f"closed_{name}" for name in DECISION),
    "opening",
    "right_down",
    "left_down",
    "touch",
    "raised",
    "lean_x",
    "lean_y",
    "lost",
    "pushed_x",
    "pushed_y",
    "sunk",
    "turned",
    "tipped_x",
    "tipped_y",
)
"""What is seen after a try; all of it is 0 before. 'closed_*': where the hand was when it had closed, seen from the tag
as a decision is: fingers push an object into their middle, so this is where it wants to be held. 'opening' then, in
units of 10 cm; the forces on each finger when the hand had gone down, and what both pads felt when closed, 1 being
firm; 'raised': the highest lift of 10 cm; the sines of the largest lean of the object in the lift, towards the tag's x
and y; 'lost': it fell or slipped after it was lifted. The last six are how the tag had moved when the hand had closed,
seen from where it was before, in the units of a decision, and the sines of the lean then: what is tall tips over, what
is round rolls away."""

DOWN, CLOSE, UP = 13, 8, 14
"""Control steps of 0.05 s for going down, closing, and going up; then the hand waits until a second is over."""
HELD, RAISED, SUCCESS = 0.2, 0.3, 0.5
"""Parts of the reward."""
_FELT = 0.05
"""Touch from which on the fingers hold something; a firm one is 1."""
_FORCE = 10.0  # newton that count as firm
_GIVE_UP = 0.05
"""Metres below which an object that should be up by now is given up."""


def grasp(decisions: np.ndarray) -> np.ndarray:
    """Grasps [..., 4] in the tag's frame that decisions [..., 4] of -1..1 stand for: metres and radians."""
    return MIDDLE + REACH * np.clip(decisions, -1.0, 1.0)


def reward(held: np.ndarray, raised: np.ndarray, success: np.ndarray) -> np.ndarray:
    """The rewards of tries, all [...]; `raised` is the highest lift in units of 10 cm."""
    return HELD * held + RAISED * np.clip(raised, 0.0, 1.0) + SUCCESS * success


def mirror(axis: Literal["x", "y"]) -> Symmetry:
    """What a trial looks like when the tag's x or y axis points the other way.

    Hand and fixed motion are the same on both sides, and so is where a tag may be. An L or a T with its bar on the
    other side is no task of the family, but an object as good as any.
    """

    def matrix(names: Sequence[str]) -> np.ndarray:
        return np.diag([-1.0 if name.split("_")[-1] in (axis, "yaw", "turned") else 1.0 for name in names])

    observation = matrix(OBSERVATION)
    if axis == "y":  # the fingers are beside each other along y
        places = [OBSERVATION.index("right_down"), OBSERVATION.index("left_down")]
        observation[places] = observation[places[::-1]]
    return Symmetry(observation, matrix(DECISION))


class TriesEnv(SimulatedVectorEnv):
    """Hands and objects, each tried once an episode; the tries of an environment from the first on are its trial.

    Args:
        threads: that step the worlds; by default one for each core. Results do not depend on it.
        visual: with all that a picture needs.
        watch: called after each control step of a try.
    """

    action_size, horizon = len(DECISION), 2

    def __init__(
        self,
        tasks: Sequence[Task],
        episodes_per_task: int,
        arm: Arm = SAWYER,
        threads: int | None = None,
        visual: bool = False,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(tasks, episodes_per_task, self.horizon)
        self._env, self._watch = GraspingVectorEnv(tasks, episodes_per_task, arm, threads, visual), watch
        if visual:  # so that there is something to see before the first try, which starts anew
            self._env.reset([np.random.default_rng(0)] * self.size)
        self._generators: dict[int, np.random.Generator] = {}
        self._seen = np.zeros((self.size, len(OBSERVATION)))
        self._ever_succeeded = np.zeros(self.size, bool)

    def _begin(self, chosen: np.ndarray, generators: Sequence[np.random.Generator], disturbance: float) -> None:
        self._generators |= dict(zip(chosen.tolist(), generators, strict=True))
        self._seen[chosen] = 0.0

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        tried, rewards = self.steps > 0, np.zeros(self.size)
        now = np.flatnonzero(active.ravel() & ~tried)
        if len(now):
            self._try(grasp(actions.reshape(self.size, -1)), now)
            held, raised = self._seen[:, OBSERVATION.index("touch")] > _FELT, self._seen[:, OBSERVATION.index("raised")]
            rewards[now] = reward(held, raised, self._env.success)[now]
            self._ever_succeeded[now] |= self._env.success[now]
        success = self._env.success.reshape(self.shape).copy()
        return self._after_step(active, rewards.reshape(self.shape), success, terminated=tried.reshape(self.shape))

    def expert_action(self) -> np.ndarray:
        """The grasp that the expert of `Grasping` would make, who sees what is hidden."""
        decisions = np.broadcast_to(expert_decisions(self.tasks)[:, None], (*self.shape, len(DECISION)))
        return np.where(self.steps.reshape(*self.shape, 1) > 0, np.nan, decisions)

    def measures(self) -> dict[str, np.ndarray]:
        """'success-by-try': whether this try of the environment or one before it succeeded."""
        return {"success-by-try": self._ever_succeeded.reshape(self.shape).astype(np.float64)}

    def render(self, index: int, width: int | None = None, height: int | None = None) -> np.ndarray:
        return self._env.render(index, width, height)

    def close(self) -> None:
        self._env.close()

    def _observe(self) -> np.ndarray:
        return self._seen.astype(np.float32).reshape(*self.shape, -1)

    def _try(self, grasps: np.ndarray, now: np.ndarray) -> None:
        """Tries grasps [env, 4] in the environments `now`, and notes in `_seen` what came of them."""
        env, seen = self._env, self._seen
        env.reset([self._generators[i] for i in now], now)
        goal = self._above(grasps, now)
        tag, yaw = env.read("tag").copy(), env.tag_yaw()
        seen[now, 0] = 1.0
        active = np.isin(np.arange(self.size), now)
        raised, lean = np.zeros(self.size), np.zeros((self.size, 2))
        for t in range(DOWN + CLOSE + UP + 25):
            if not active.any():
                break
            if t == DOWN:
                seen[now, 6:8] = np.tanh(env.read("pads") / _FORCE)[now]
            if t == DOWN + CLOSE:
                seen[now, 1:6], seen[now, 8] = self._closed()[now], self._feel()[now]
                seen[now, 13:] = self._moved(tag, yaw)[now]
                active &= self._feel() > _FELT
                goal[:, 2] += LIFT_GOAL
            if t == DOWN + CLOSE + UP:
                active &= self._lift() > _GIVE_UP
            result = env.step(self._towards(goal, grip=-1.0 if t < DOWN else 1.0), active.reshape(self.shape))
            self._watch()
            if t >= DOWN + CLOSE:
                raised = np.where(active, np.maximum(raised, self._lift() / LIFT), raised)
                tilt = self._lean()
                more = active & (np.linalg.norm(tilt, axis=1) > np.linalg.norm(lean, axis=1))
                lean = np.where(more[:, None], tilt, lean)
            active &= ~result.over.ravel()
        seen[now, 9:13] = np.column_stack([np.clip(raised, 0.0, 1.5), lean, env.slipped])[now]

    def _above(self, grasps: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Puts the open hands of the worlds `now` above the grasps; returns where they shall go down, [env, 4]."""
        env, tag = self._env, self._env.read("tag")
        yaw = env.tag_yaw()
        place = tag[:, :2] + rotate(grasps[:, :2], yaw)
        goal = np.column_stack([place, grasps[:, 2] + tag[:, 2], grasps[:, 3] + yaw])
        env.target[now] = np.column_stack([place, np.full(len(place), SAFE_HEIGHT)])[now]
        env.target_yaw[now] = goal[now, 3]
        env.worlds.each(env.place_hand, now)
        return goal

    def _towards(self, goal: np.ndarray, grip: float) -> np.ndarray:
        """The actions [env, 5] of `Grasping` that bring the hands to goals [env, 4] as fast as they may go."""
        env = self._env
        off = np.column_stack([goal[:, :3] - env.target, goal[:, 3] - env.target_yaw])
        off[:, :2] = rotate(off[:, :2], -env.tag_yaw())
        return np.column_stack([off / [MAX_STEP, MAX_STEP, MAX_STEP, MAX_TURN], np.full(len(off), grip)])

    def _closed(self) -> np.ndarray:
        """The hand in the tag's frame as a decision, and the opening in units of 10 cm, [env, 5].

        All three axes count: a sphere has rolled on the way into the fingers' middle.
        """
        env = self._env
        x, z = env.read("tag_x"), env.read("object_z")
        axes = np.stack([x, np.cross(z, x), z], 1)
        place, across = (axes @ v[..., None] for v in (env.read("tool") - env.read("tag"), env.read("hand_y")))
        hand = np.column_stack([place[..., 0], np.arctan2(-across[:, 0], across[:, 1])])
        opening = env.observations.reshape(self.size, -1)[:, 4] * OBSERVATION_SCALE[4] / 0.1
        return np.column_stack([np.clip((hand - MIDDLE) / REACH, -2.0, 2.0), opening])

    def _moved(self, tag: np.ndarray, yaw: np.ndarray) -> np.ndarray:
        """How tags have moved from places [env, 3] and yaws [env], and how objects lean, [env, 6]."""
        way = self._env.read("tag") - tag
        turn = wrapped(self._env.tag_yaw() - yaw)
        moved = np.column_stack([rotate(way[:, :2], -yaw), way[:, 2], turn]) / REACH
        return np.column_stack([np.clip(moved, -2.0, 2.0), rotate(self._env.read("object_z")[:, :2], -yaw)])

    def _feel(self) -> np.ndarray:
        return np.asarray(np.tanh(self._env.read("pads").min(axis=1) / _FORCE))

    def _lift(self) -> np.ndarray:
        return self._env.read("tag")[:, 2] - self._env.start_height

    def _lean(self) -> np.ndarray:
        """Sines of the object's lean towards the tag's x and y, [env, 2]."""
        return rotate(self._env.read("object_z")[:, :2], -self._env.tag_yaw())


class GraspingTries(Grasping):
    """The tasks of `Grasping`, learned by tries; see the module's text.

    The metric is whether one of the tries so far succeeded; tables also show success of each try, and return.
    """

    name = "grasping-tries"
    seed_name = Grasping.name
    protocol = (
        "shape, size, height and grasp point are hidden, an episode is one try: a grasp is decided, a fixed motion "
        "carries it out, and what came of it is seen; the object's pose and the action noise are drawn anew for every "
        "try; success is lifted by 10 cm and still held, unslipped and upright, a second later; success-by-try is "
        "whether a try up to this one succeeded, within a sequence of tries"
    )
    metric = "success-by-try"
    secondary_metrics = ("success", "return")
    observation_size, observation_limit = len(OBSERVATION), np.inf
    action_size, horizon = len(DECISION), TriesEnv.horizon
    observation_channels, action_channels, rest = OBSERVATION, DECISION, None
    learned_from = ("trials",)
    default_method = "rl2-dagger"
    method_settings: Mapping[str, Changes] = BY_TRIES
    symmetries = (mirror("x"), mirror("y"))

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        """Hands and objects, every environment at the beginning of a trial."""
        check_run(tasks, episodes_per_task)
        return TriesEnv([self.check(task) for task in tasks], episodes_per_task, self.arm, self.threads, visual)

    def film(
        self, task: Task, policy: Policy, seed: int, width: int | None = None, height: int | None = None
    ) -> np.ndarray:
        """Pictures [frame, height, width, 3] of the control steps of the try that `run` would run first."""
        frames: list[np.ndarray] = []
        env = TriesEnv(
            [self.check(task)], 1, self.arm, visual=True, watch=lambda: frames.append(env.render(0, width, height))
        )
        with env:
            observations = env.reset(generators([task], 1, EPISODE, seed))
            env.step(np.asarray(policy(observations)), np.ones(env.shape, bool))
        return np.stack(frames)


def expert_decisions(tasks: Sequence[Task]) -> np.ndarray:
    """The decisions [task, 4] that the expert of `Grasping` would make, who sees what is hidden."""
    names = ("grasp_x", "grasp_y", "grasp_height", "grasp_yaw")
    known = np.array([[task.parameters[name] for name in names] for task in tasks])
    return np.asarray((known - MIDDLE) / REACH)
