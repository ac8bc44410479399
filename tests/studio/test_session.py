"""A session: demonstrations, skills, tries and their comparison, without a browser."""

import shutil
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping.scene import rotate
from quickstudy.studio import learners, learning
from quickstudy.studio.arena import GraspingArena
from quickstudy.studio.learning import Choice, Learned
from quickstudy.studio.session import Session

GRASPING = [choice for choice in learning.choices() if choice.family == "grasping"]
MATCHING = next(choice for choice in GRASPING if choice.method == "matching")


def wait(done: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session([MATCHING, *(choice for choice in GRASPING if choice is not MATCHING)], seed=3)
    yield made
    made.close()
    assert not made.alive


def where(session: Session) -> tuple[np.ndarray, float, float]:
    """Place [2] on the table, height and yaw of the right grasp, as a person sees them."""
    env, p = session.arena.env, session.arena.task.parameters
    yaw = float(env.tag_yaw()[0])
    place = env.read("tag")[0, :2] + rotate(np.array([p["grasp_x"], p["grasp_y"]]), np.array(yaw))
    return place, p["grasp_height"], yaw + p["grasp_yaw"]


def led(session: Session, place: np.ndarray, yaw: float) -> None:
    session.move(place, yaw)
    env = session.arena.env
    wait(lambda: session.mode == "rest" or bool(np.linalg.norm(env.target[0] - session.handle.place) < 0.004))


def test_from_a_persons_demonstration_to_a_robot_that_can(session: Session) -> None:
    assert isinstance(session.arena, GraspingArena)
    session.show()
    at, height, yaw = where(session)
    led(session, np.array([*at, 0.15]), yaw)
    led(session, np.array([*at, height]), yaw)
    time.sleep(0.3)
    session.grip()
    time.sleep(0.8)
    session.move(np.array([*at, 0.2]), yaw)
    wait(lambda: session.mode == "rest")
    (shown,) = session.shown
    assert (shown.by, shown.success, shown.faults) == ("person", True, ())
    session.learn()
    assert session.skill is not None
    wait(lambda: session.moving_ms > 0)
    assert session.moving_ms < 5000
    session.rest()
    before = session.score.tries
    session.try_many(10)
    assert session.score.tries == before + 10
    assert session.score.successes >= 7
    assert session.curve[-1][0] == 1


def test_an_expert_demonstrates_and_undo_takes_it_back(session: Session) -> None:
    session.show_by_expert()
    wait(lambda: len(session.shown) == 1)
    assert session.shown[0].by == "expert"
    session.learn()
    session.rest()
    session.undo()
    assert session.shown == []
    assert session.skill is None
    with pytest.raises(QuickstudyError, match="no demonstration"):
        session.learn()


def test_a_clumsy_demonstration_is_told_what_was_wrong(session: Session) -> None:
    session.show()
    led(session, session.handle.place + [0.05, 0.0, -0.03], session.handle.yaw)
    session.finish()
    assert session.shown[0].faults[0][0] == "never_closed"
    session.undo()
    session.show()
    led(session, session.handle.place + [0.05, 0.0, 0.0], session.handle.yaw)
    session.grip()
    time.sleep(0.8)
    session.finish()
    key, values = session.shown[0].faults[0]
    assert key == "closed_beside"
    assert values["above"] > 3


def test_another_robot_is_compared_with_in_the_same_scene(session: Session) -> None:
    session.show_by_expert()
    wait(lambda: len(session.shown) == 1)
    session.compare_with(learning.NO_ADAPTATION)
    session.learn()
    assert session.frame().beside
    wait(lambda: session.beside_score.tries >= 1 and session.score.tries >= 1)
    session.rest()
    session.try_many(10)
    assert session.score.successes > session.beside_score.successes
    session.compare_with(learning.NOTHING)
    assert not session.frame().beside


def test_a_failure_of_the_physics_is_said_and_the_session_goes_on(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the world fell apart")

    monkeypatch.setattr(session.arena, "step", fail)
    session.show_by_expert()
    wait(lambda: bool(session.failure))
    assert "the world fell apart" in session.failure
    assert session.mode == "rest"
    monkeypatch.undo()
    session.failure = ""
    session.show_by_expert()
    wait(lambda: len(session.shown) == 1)
    assert session.failure == ""


def test_a_demonstration_of_another_family_is_refused(session: Session) -> None:
    with pytest.raises(QuickstudyError, match="3 and 2 wide; those of grasping are 9 and 5"):
        session.add(Demonstration(np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)))


def test_attention_lies_on_demonstrated_steps_and_sums_to_one(session: Session) -> None:
    session.show_by_expert()
    wait(lambda: len(session.shown) == 1)
    session.learn()
    found = session.attention()
    assert found is not None
    places, weights = found
    assert len(places) == len(weights) == len(session.shown[0].demonstration)
    assert weights.sum() == pytest.approx(1.0, abs=1e-4)
    tag = session.arena.env.read("tag")[0]
    assert np.linalg.norm(places - tag, axis=1).max() < 0.6


def test_distance_moved_is_told_of_learners_whose_parameters_move() -> None:
    maml = next(choice for choice in GRASPING if choice.method in ("maml", "transfer"))
    session = Session([maml, MATCHING], seed=3)
    try:
        session.show_by_expert()
        wait(lambda: len(session.shown) == 1)
        session.learn()
        assert isinstance(session.skill, Learned)
        assert session.skill.moved is not None
        assert session.skill.moved > 0
        session.choose(MATCHING)
        session.learn()
        assert isinstance(session.skill, Learned)
        assert session.skill.moved is None
    finally:
        session.close()


def test_two_sessions_do_not_meet(session: Session) -> None:
    other = Session([MATCHING], seed=4)
    try:
        session.show_by_expert()
        wait(lambda: len(session.shown) == 1)
        assert other.shown == []
        assert other.mode == "rest"
        assert other.arena.task.name != session.arena.task.name
    finally:
        other.close()


def test_a_session_without_learners_says_so() -> None:
    with pytest.raises(QuickstudyError, match="needs a trained learner"):
        Session([])


@pytest.mark.parametrize(
    "choice", [one for one in learning.choices() if one.family != "grasping"], ids=lambda c: c.name
)
def test_other_families_are_demonstrated_and_tried(choice: Choice) -> None:
    session = Session([choice], seed=1)
    try:
        if choice.by_trial:
            session.try_it()
            wait(lambda: len(session.trials) >= 2)
        else:
            session.show_by_expert()
            wait(lambda: len(session.shown) == 1)
            session.learn()
        wait(lambda: session.score.tries >= 1)
        assert session.failure == ""
    finally:
        session.close()


def test_tries_at_once_beside_tries_that_are_shown_do_not_disturb_each_other() -> None:
    maml = next(choice for choice in GRASPING if choice.method == "maml")
    sessions = [Session([maml], seed=i) for i in range(2)]
    try:
        for session in sessions:
            session.show_by_expert()
        wait(lambda: all(len(session.shown) == 1 for session in sessions))
        for session in sessions:
            session.learn()
        for session in sessions * 2:
            session.try_many(5)
        assert [session.failure for session in sessions] == ["", ""]
        assert all(session.mode == "trying" for session in sessions)
    finally:
        for session in sessions:
            session.close()


def test_runs_of_one_name_are_told_apart_and_one_run_is_there_once(tmp_path):
    known = learners.FOLDER / "grasping-matching"
    runs = [tmp_path / place / "last" for place in ("one", "two")]
    for run in runs:
        shutil.copytree(known, run)
    own = [one for one in learning.choices([*runs, runs[0]]) if tmp_path in one.run.parents]
    assert [one.name for one in own] == ["matching (last)", f"matching ({runs[1]})"]
