"""One browser tab: its scene, demonstrations, skill and tries. Nothing here knows of a browser.

The physics has a thread of its own, which ends with the session. Whoever shows the session reads `frame`, and asks
`version` whether something else has changed.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quickstudy import families
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.studio import learning
from quickstudy.studio.arena import BESIDE, LEARNER, Arena, Handle, Said
from quickstudy.studio.arenas import ARENAS
from quickstudy.studio.demonstrating import Recorder
from quickstudy.studio.learning import NOTHING, Choice, Learned, Trier
from quickstudy.studio.motion import Frame, Motion, still
from quickstudy.task import Task

Mode = Literal["rest", "shown by person", "shown by expert", "trying"]
MOST_SHOWN = 8
"""Demonstrations of one task that are kept."""
_BREAK = 0.6
"""Seconds from the end of a try to the next one."""
_TICK = 1 / 30
"""Seconds from one picture to the next, at the least."""


@dataclass(frozen=True)
class Shown:
    """A demonstration of the task, and what was wrong with it."""

    demonstration: Demonstration
    by: Literal["person", "expert", "file"]
    success: bool
    faults: tuple[Said, ...] = ()


@dataclass
class Score:
    """How tries of one robot ended."""

    successes: int = 0
    tries: int = 0

    def add(self, ends: Sequence[bool]) -> None:
        self.successes, self.tries = self.successes + int(sum(ends)), self.tries + len(ends)


class Session:
    """See the module's text; every public method may be called from any thread.

    Args:
        choices: the learners that there are.
        seed: of the tasks and tries.

    Attributes:
        choice: the learner that is taught.
        beside: what it is compared with: `learning.NOTHING`, a baseline, or another learner's name.
        arena: where the task is played.
        mode: what the first robot does.
        shown: demonstrations of this task so far.
        skill, beside_skill: what came of them; None before.
        score, beside_score: of tries since.
        trials: how the tries of one that learns by trial ended, from the first on.
        curve: success by the number of demonstrations, or of own tries before, of tries at once: (number, successes,
            tries).
        failure: what went wrong last, in a sentence; empty where nothing did.
        moving_ms: from the call of `learn` to the first step of the robot that learned.
        version: goes up with each change that is not a motion.
    """

    def __init__(self, choices: Sequence[Choice], seed: int | None = None) -> None:
        if not choices:
            raise QuickstudyError("The studio needs a trained learner, and the package holds none; name one by --run.")
        self._rng = np.random.default_rng(seed)
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self.choices, self.choice, self.beside = list(choices), choices[0], NOTHING
        self.mode: Mode = "rest"
        self.shown: list[Shown] = []
        self.skill: Learned | Trier | None = None
        self.beside_skill: Learned | None = None
        self.score, self.beside_score = Score(), Score()
        self.trials: list[bool] = []
        self.curve: list[tuple[int, int, int]] = []
        self.failure, self.moving_ms, self.version = "", 0.0, 0
        self._clicked = 0.0
        self._recorder: Recorder | None = None
        self._policies: list[Any] = []
        self._active = np.zeros(2, bool)
        self._due = 0.0
        self._tries = 0
        self.arena = self._arena_of(self._drawn())
        self.handle: Handle = self.arena.handle()
        self._motion = still(self.arena)
        self._thread = threading.Thread(target=self._run, name="studio-physics", daemon=True)
        self._thread.start()

    # ---- what a person asks for

    def choose(self, choice: Choice) -> None:
        """Teaches another learner; of the same family, the task and its demonstrations stay."""
        with self._lock:
            before, self.choice = self.choice, choice
            if choice.family == before.family:
                if choice.by_trial or self.beside == choice.name:
                    self.beside = NOTHING
                self._forget_skill()
                return
            beside, self.beside = self.beside, NOTHING
            try:
                self.new_task()
            except BaseException:
                self.choice, self.beside = before, beside
                raise

    def compare_with(self, beside: str) -> None:
        with self._lock:
            self.beside = beside
            self.beside_score = Score()
            self.beside_skill = self._beside() if self.skill is not None else None
            self._rest()
            self._changed()

    def new_task(self, task: Task | None = None) -> None:
        """An unseen task of a test split, or the one that is given."""
        with self._lock:
            arena = self._arena_of(task or self._drawn())  # before anything is let go of: it may fail
            self.arena.close()
            self.arena, self._motion = arena, still(arena)
            self._recorder, self.handle = None, arena.handle()
            self.shown.clear()
            self.curve.clear()
            self._forget_skill()

    def caption(self, name: Callable[[str], str]) -> str:
        """What the task is called; `name` translates its shape or style."""
        return self.arena.caption(name)

    def make_task(self, kind: str, values: dict[str, float]) -> None:
        """A task of a person's own making."""
        self.take_task(ARENAS[self.choice.family].made(kind, values, self._rng))

    def take_task(self, parameters: Mapping[str, Any]) -> None:
        """A task with parameters from elsewhere: drawn, or of a file."""
        family = self.arena.family
        self.new_task(Task(family.seed_name or family.name, "own", int(self._rng.integers(1 << 30)), parameters))

    def move(self, place: np.ndarray, yaw: float) -> None:
        """The handle was dragged; this waits for nothing, as it comes with every motion of the mouse."""
        low, high = np.array(self.arena.limits()).T
        self.handle = Handle(np.clip(place, low, high), yaw, self.handle.grip)

    def move_to(self, place: np.ndarray) -> None:
        """The handle goes to a place on the floor [2]."""
        self.move(np.array([*place, self.handle.place[2]]), self.handle.yaw)

    def grip(self) -> None:
        """Closes the gripper, or opens it."""
        self.handle = Handle(self.handle.place, self.handle.yaw, -self.handle.grip)
        self.touch()

    def touch(self) -> None:
        """Something has changed that is no motion."""
        with self._lock:
            self._changed()

    def show(self) -> None:
        """A person begins to demonstrate; the handle is where the robot is."""
        self._begin_showing("shown by person", 0.0)

    def show_by_expert(self) -> None:
        self._begin_showing("shown by expert", self.arena.family.disturbance)

    def finish(self) -> None:
        """The demonstration is over as it is."""
        with self._lock:
            if self._recorder is not None:
                self._end_showing(self.arena.success(LEARNER))

    def add(self, demonstration: Demonstration) -> None:
        """A demonstration from elsewhere.

        Raises:
            QuickstudyError: its widths are not the family's.
        """
        family = self.arena.family
        widths = demonstration.observations.shape[1], demonstration.actions.shape[1]
        if widths != (family.observation_size, family.action_size):
            raise QuickstudyError(
                f"The demonstration's observations and actions are {widths[0]} and {widths[1]} wide; those of "
                f"{family.name} are {family.observation_size} and {family.action_size}."
            )
        self._check_room()
        with self._lock:
            self.shown.append(Shown(demonstration, "file", True))
            self._forget_skill()

    def adopt(self, skill: Learned) -> None:
        """A skill from elsewhere, of the learner that is chosen."""
        with self._lock:
            self._forget_skill()
            self.skill, self.beside_skill = skill, None
            self._changed()

    def undo(self) -> None:
        """Takes the last demonstration back, or the one that is being given."""
        with self._lock:
            if self._recorder is not None:
                self._recorder = None
            elif self.shown:
                self.shown.pop()
            self._forget_skill()

    def learn(self) -> None:
        """The learner adapts to all demonstrations so far, and begins to try.

        Raises:
            QuickstudyError: there is none, or see `quickstudy.evaluation.adapt`.
        """
        self._clicked = time.perf_counter()
        with self._lock:
            if not self.shown:
                raise QuickstudyError("There is no demonstration to learn from yet.")
            every = [one.demonstration for one in self.shown]
            self.skill = learning.learned(learning.loaded(self.choice.run), every, self.arena.family)
            self.beside_skill = self._beside()
            self.score, self.beside_score = Score(), Score()
            self.try_it()

    def try_it(self) -> None:
        """Tries one scene after the other until `rest`; before a demonstration, to see what it does without."""
        with self._lock:
            if self.skill is None:
                self.skill = self._unlearned()
                self.beside_skill = self._beside()
            self.mode = "trying"
            self._begin_try()
            self._changed()

    def rest(self) -> None:
        with self._lock:
            self._rest()
            self._changed()

    def try_many(self, count: int = 20) -> None:
        """Counts tries at once, in scenes that are not shown."""
        with self._lock:
            skill, beside, task, family = self.skill, self.beside_skill, self.arena.task, self.arena.family
        if skill is None:
            raise QuickstudyError("There is no skill to try yet; let it learn first.")
        seed = int(self._rng.integers(1 << 31))
        if isinstance(skill, Trier):
            rounds = skill.rounds(family, task, count, seed)
            with self._lock:
                if skill is self.skill:
                    self.score.add(rounds[-1].tolist())
                    self.curve += [(before, int(ends.sum()), count) for before, ends in enumerate(rounds)]
                    self._changed()
            return
        ends = [learning.many(one, family, task, count, seed) for one in (skill, beside) if one is not None]
        with self._lock:
            if skill is self.skill:
                self.score.add(ends[LEARNER].tolist())
                if beside is not None and beside is self.beside_skill:
                    self.beside_score.add(ends[BESIDE].tolist())
                self.curve.append((skill.shots, int(ends[LEARNER].sum()), count))
                self._changed()

    def close(self) -> None:
        """Ends the physics; a session that is closed cannot be used again."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)
        with self._lock:
            self.arena.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    # ---- what is drawn

    def frame(self) -> Frame:
        with self._lock:
            return Frame(self.arena, *self._motion.between(time.perf_counter()), self.beside != NOTHING)

    @property
    def observation(self) -> np.ndarray:
        """What the first robot sees now, [obs]."""
        with self._lock:
            return self.arena.observations[LEARNER].copy()

    def attention(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of the learner's robot now: places of the demonstrated steps [step, 3], and attention to each [step]."""
        with self._lock:
            if not isinstance(self.skill, Learned) or not self.shown or self.skill.shots != len(self.shown):
                return None
            weights = learning.attention(self.skill, self.arena.observations[LEARNER])
            if weights is None:
                return None
            seen = np.concatenate([one.demonstration.observations for one in self.shown])
            return self.arena.shown_at(seen), weights

    # ---- the physics

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            try:
                with self._lock:
                    if self.mode != "rest" and started >= self._due:
                        self._step(started)
            except Exception as error:  # whatever fails in one tab must not take others with it
                with self._lock:
                    self.failure = (
                        str(error) if isinstance(error, QuickstudyError) else f"{type(error).__name__}: {error}"
                    )
                    self._recorder = None
                    self._rest()
                    self._changed()
            wait = min(_TICK, max(0.001, self._due - time.perf_counter())) if self.mode != "rest" else _TICK
            self._stop.wait(wait)

    def _step(self, now: float) -> None:
        if self.mode == "trying" and not self._active.any():
            self._begin_try()
            return
        before = self.arena.poses()
        over = self._step_of_try() if self.mode == "trying" else self._step_of_showing()
        speed = self.arena.show_speed if self.mode == "shown by person" else self.arena.speed
        lasts = 1.0 / ((self.arena.family.rate or 20.0) * speed)
        way = self.arena.passed()
        self._motion = Motion([before, *way], now, lasts)
        lasts *= len(way)
        late = now - self._due > 2 * lasts
        self._due = (now if late else self._due) + (lasts + _BREAK if over else lasts)

    def _step_of_showing(self) -> bool:
        recorder, arena = self._recorder, self.arena
        if recorder is None:
            self._rest()
            return True
        seen = arena.observations[LEARNER].copy()
        if self.mode == "shown by person":
            action = arena.follow(self.handle)
        else:
            action = np.nan_to_num(arena.env.expert_action()[0, LEARNER]).astype(np.float32)
        recorder.add(seen, action)
        actions = np.zeros((2, arena.family.action_size), np.float32)
        actions[LEARNER] = action
        result = arena.step(actions, np.array([True, False]))
        if bool(result.terminated[0, LEARNER]) or recorder.full:
            self._end_showing(arena.success(LEARNER))
            return True
        if self.mode == "shown by expert" and bool(result.over[0, LEARNER]):
            self._recorder = None
            self._begin_showing("shown by expert", arena.family.disturbance)  # it failed, and shows it again
        return False

    def _step_of_try(self) -> bool:
        observations = self.arena.observations
        actions = np.zeros((2, self.arena.family.action_size), np.float32)
        for robot, policy in enumerate(self._policies):
            if self._active[robot]:
                actions[robot] = policy(observations[None, robot : robot + 1])[0, 0]
        result = self.arena.step(actions, self._active)
        if self.moving_ms == 0.0 and self._clicked:
            self.moving_ms = 1e3 * (time.perf_counter() - self._clicked)
            self._changed()
        if isinstance(self.skill, Trier):
            self.skill.take(float(result.rewards[0, LEARNER]), bool(result.over[0, LEARNER]))
        ended = self._active & result.over[0]
        if ended[LEARNER] and isinstance(self.skill, Trier):
            self.trials.append(self.arena.success(LEARNER))
        for robot, score in ((LEARNER, self.score), (BESIDE, self.beside_score)):
            if ended[robot]:
                score.add([self.arena.success(robot)])
                self._changed()
        self._active &= ~ended
        return not self._active.any()

    # ---- parts of these

    def _begin_showing(self, mode: Mode, disturbance: float) -> None:
        self._check_room()
        with self._lock:
            self._rest()
            self._score_over()
            self.arena.reset([int(self._rng.integers(1 << 31))], demonstrating=True, disturbance=disturbance)
            self.handle = self.arena.handle()
            self._recorder = Recorder(grips=self.arena.grips)
            self.mode, self._due = mode, time.perf_counter()
            self._motion = still(self.arena)
            self._changed()

    def _end_showing(self, success: bool) -> None:
        recorder, by = self._recorder, "person" if self.mode == "shown by person" else "expert"
        self._recorder = None
        if recorder is not None and len(recorder):
            demonstration = recorder.demonstration()
            faults = self.arena.faults(success, demonstration.observations, demonstration.actions)
            self.shown.append(Shown(demonstration, by, success, tuple(faults)))  # type: ignore[arg-type]
        self._rest()
        self.skill = self.beside_skill = None
        self._changed()

    def _begin_try(self) -> None:
        assert self.skill is not None
        self._tries += 1
        self.arena.reset([int(self._rng.integers(1 << 31))])
        others = [] if self.beside_skill is None else [self.beside_skill.policy()]
        self._policies = [self.skill.policy(), *others]
        self._active = np.array([True, bool(others)])
        self._motion, self._due = still(self.arena), time.perf_counter()

    def _beside(self) -> Learned | None:
        """What the other robot learned of the same demonstrations."""
        if self.beside == NOTHING or self.skill is None or isinstance(self.skill, Trier):
            return None
        every = [one.demonstration for one in self.shown][: self.skill.shots]
        known = {one.name: one for one in self.choices if one.family == self.choice.family}
        if self.beside in known:
            return learning.learned(learning.loaded(known[self.beside].run), every, self.arena.family)
        made = learning.baseline(self.choice.family, self.beside)
        return learning.learned(made, every, self.arena.family)

    def _score_over(self) -> None:
        self.moving_ms, self._clicked = 0.0, 0.0

    def _forget_skill(self) -> None:
        self.skill = self.beside_skill = None
        self.score, self.beside_score = Score(), Score()
        self.trials.clear()
        self._score_over()
        self._rest()
        self._changed()

    def _unlearned(self) -> Learned | Trier:
        """What the chosen learner does before it has learned."""
        learner = learning.loaded(self.choice.run)
        family = self.arena.family
        if self.choice.by_trial:
            return Trier(learning.own(learner), family.action_size)
        return learning.learned(learner, [], family)

    def _rest(self) -> None:
        self.mode, self._active = "rest", np.zeros(2, bool)

    def _changed(self) -> None:
        self.version += 1

    def _check_room(self) -> None:
        if len(self.shown) >= MOST_SHOWN:
            raise QuickstudyError(f"At most {MOST_SHOWN} demonstrations of a task are kept; undo one first.")

    def _drawn(self) -> Task:
        family = _family(self.choice.family)
        split = str(self._rng.choice(family.test_splits))
        return family.task(split, int(self._rng.integers(family.sizes[split])))

    def _arena_of(self, task: Task) -> Arena:
        made = ARENAS[self.choice.family](_family(self.choice.family), task)
        made.reset([int(self._rng.integers(1 << 31))])
        if not self.choice.by_trial:
            learning.warm_up(learning.loaded(self.choice.run), made.family)
        return made


_FAMILIES: dict[str, Any] = {}


def _family(name: str) -> Any:
    """A family; made once, as no session changes it."""
    if name not in _FAMILIES:
        _FAMILIES[name] = families.get(name)
    return _FAMILIES[name]
