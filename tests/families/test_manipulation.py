"""Families of Meta-World: what is hidden, what varies, experts and the contract."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from quickstudy import families, methods
from quickstudy.data import Batch, collate
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import SkillPolicy, skills_after
from quickstudy.families.gymnasium.registration import register
from quickstudy.families.metaworld import official
from quickstudy.families.metaworld.catalogue import ML10, TASKS
from quickstudy.families.metaworld.family import LENGTHS, Manipulation, ml1, ml10, ml45, tools
from quickstudy.families.metaworld.port import Tool, build
from quickstudy.families.metaworld.tool_use import Hammer
from quickstudy.task import Policy

WARP = methods.get("warp")


def held(family, count=2, split="test"):
    return family.tasks(split, count)


def nothing(seen):
    return np.zeros((*seen.shape[:2], 4))


def test_splits_are_the_official_ones():
    family = ml10()
    names = {split: {task.parameters["task"] for task in family.tasks(split, 20)} for split in family.sizes}
    assert names == {split: set(tasks) for split, tasks in ML10.items()}
    tasks = family.tasks("train", 20)
    assert [task.parameters["task"] for task in tasks] == list(ML10["train"]) * 2  # an equal share of any number


def test_goals_differ_between_the_tasks_and_splits_of_ml1():
    family = ml1("push")
    goals = {tuple(task.parameters["goal"]) for split in family.sizes for task in family.tasks(split, 20)}
    assert len(goals) == 20 * len(family.sizes)


def test_a_hidden_goal_is_zeros_and_a_visible_one_is_there():
    for goal, shown in (("hidden", False), ("visible", True)):
        family = ml1("push", goal=goal, horizon=3, threads=1)
        seen = []
        family.run(held(family), 2, lambda x, seen=seen: (seen.append(x.copy()), nothing(x))[1], seed=0)
        goals = np.stack(seen)[..., 36:]
        assert goals.any() == shown
        if shown:  # and elsewhere in every episode
            assert len(np.unique(goals[0].reshape(-1, 3), axis=0)) == 4


def test_hidden_goals_stay_while_the_object_moves():
    family = ml1("push", horizon=200, threads=1)
    (one, other), *_ = family.demonstrate(held(family, 1), 2, 0)
    assert np.abs(one.observations[0, 4:6] - other.observations[0, 4:6]).max() > 0.005
    goal = family.task("test", 0).parameters["goal"]
    for demonstration in (one, other):
        assert np.linalg.norm(demonstration.observations[-1, 4:6] - goal[:2]) < 0.05


def test_a_scrambled_observation_is_the_plain_one_in_another_order():
    plain, scrambled = ml1("reach", horizon=5, threads=1), ml1("reach", horizon=5, scramble=True, threads=1)
    task = scrambled.task("test", 3)
    order = task.parameters["order"]
    assert sorted(order) == list(range(39))
    seen = {}
    for family in (plain, scrambled):
        same = plain.task("test", 3)
        parameters = {**same.parameters, "goal": task.parameters["goal"]} if family is plain else task.parameters
        with family.vector_env([replace(same, family=family.name, parameters=parameters)], 1) as env:
            seen[family.name] = env.reset([np.random.default_rng(0)])[0, 0]
    np.testing.assert_array_equal(seen[scrambled.name], seen[plain.name][order])
    assert scrambled.observation_layout is None
    assert WARP.why_not(scrambled)
    assert scrambled.task("test", 4).parameters["order"] != order


def test_tools_of_training_and_of_test_differ():
    family = tools()
    lengths = {split: [task.parameters["length"] for task in family.tasks(split, 60)] for split in family.sizes}
    for low, high in LENGTHS["tools"]:
        assert not any(low <= length < high for length in lengths["train"] + lengths["validation"])
    for split, bands in LENGTHS.items():
        assert all(any(low <= length < high for low, high in bands) for length in lengths[split])
    trained = {task.parameters["task"] for task in family.tasks("train", 12)}
    assert trained.isdisjoint(task.parameters["task"] for task in family.tasks("tasks", 4))


def test_a_longer_tool_is_longer():
    """The nail is hit from farther away: Meta-World's own hammer reaches 16 cm from the grip."""
    ends = []
    for length in (1.0, 1.25):
        model = build(Hammer, Tool(length))
        geoms = np.flatnonzero(model.geom_bodyid == model.body("hammer").id)
        ends.append(model.geom_pos[geoms, 0].max())
    assert ends[1] - ends[0] == pytest.approx(0.25 * 0.16)


def test_runs_are_deterministic_and_count_both_successes():
    family = ml1("reach", horizon=90, threads=2)
    tasks = held(family)
    first, again = (family.run_expert(tasks, 2, 0) for _ in range(2))
    for name, values in first.items():
        assert values.shape == (2, 2)
        np.testing.assert_array_equal(values, again[name])
    assert first["success"].mean() == 1.0
    assert (first["success_last"] <= first["success"]).all()
    assert (first["steps"] < 90).all()
    assert first["return"].max() <= 10 * 90


def test_demonstrations_are_clean_end_after_success_and_know_no_company():
    family = ml1("push", threads=1, tail=4)
    tasks = held(family)
    both, alone = family.demonstrate(tasks, 1, 0), family.demonstrate(tasks[1:], 1, 0)
    np.testing.assert_array_equal(both[1][0].observations, alone[0][0].observations)
    assert len(both[0][0]) < family.horizon
    assert np.abs(both[0][0].actions).max() <= 1.0


def test_an_expert_that_fails_is_said_so(monkeypatch):
    monkeypatch.setattr(official, "expert", lambda name: lambda seen: np.zeros((len(seen), 4), np.float32))
    monkeypatch.setattr(Manipulation, "attempts", 2)
    family = ml1("reach", horizon=5, threads=1)
    with pytest.raises(QuickstudyError, match="expert failed to demonstrate task ml1-reach/test/0 in 2 attempts"):
        family.demonstrate(held(family), 1, 0)


def test_a_slow_demonstration_is_tried_again_and_the_quickest_is_kept(monkeypatch):
    """Attempts of 180 steps, a failure, 170 and 190: more than 150 to a success are slow, and there are four."""
    lengths = iter([180, None, 170, 190])

    def attempt(self, env, drawn, todo):
        steps = next(lengths)
        return [Demonstration(np.zeros((steps, 39), "f4"), np.zeros((steps, 4), "f4")) if steps else None]

    monkeypatch.setattr(Manipulation, "_attempt", attempt)
    family = ml1("reach", tail=10, threads=1)
    assert len(family.demonstrate(held(family, 1), 1, 0)[0][0]) == 170
    assert next(lengths, "all were tried") == "all were tried"
    lengths = iter([160])
    assert len(family.demonstrate(held(family, 1), 1, 0)[0][0]) == 160


def test_success_of_a_demonstration_stays_and_it_ends_a_tail_later():
    family = ml1("reach", tail=3, threads=1)
    with family.vector_env(held(family, 1), 1, demonstrating=True) as env:
        env.reset([np.random.default_rng(0)])
        active, succeeded = np.ones((1, 1), bool), []
        while active.any():
            result = env.step(env.expert_action(), active)
            active &= ~result.over
            succeeded.append(bool(result.success[0, 0]))
        assert np.isnan(env.expert_action()).all()  # nobody asks where the episode is over
    assert succeeded == [False] * (len(succeeded) - 4) + [True] * 4
    assert result.terminated.all()
    assert not result.truncated.any()


def test_experts_of_trials_bring_the_finger_tips_to_the_goal_and_those_of_demonstrations_the_hand():
    family = ml1("reach", noise=0.0, threads=1)
    asked = []
    for demonstrating in (False, True):
        with family.vector_env(held(family, 1), 1, demonstrating=demonstrating) as env:
            env.reset([np.random.default_rng(0)])
            for _ in range(60):
                env.step(env.expert_action(), np.ones((1, 1), bool))
            asked.append(env._sims.observations[0, 2] - env._sims.observations[0, 38])
    assert asked[0] == pytest.approx(0.045, abs=0.01)
    assert asked[1] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(
    ("family", "new"),
    [(ml1("push"), True), (ml1("push", goal="visible"), False), (ml1("door-open"), False), (ml10("visible"), True)],
    ids=["goals", "visible", "no goal", "other tasks"],
)
def test_which_families_hold_tasks_out(family, new):
    assert family.holds_out_tasks == new


def test_the_protocol_names_reward_goal_and_success():
    assert "v2 rewards, goal hidden" in ml1("push").protocol
    assert "goal visible" in ml10("visible").protocol
    assert "order of the task's own" in ml1("push", scramble=True).protocol
    assert "tools of other lengths" in tools().protocol


def test_any_task_by_its_name():
    for task in TASKS:
        assert families.get(f"ml1-{task.removesuffix('-v3')}").name == f"ml1-{task.removesuffix('-v3')}"
    assert families.get("ml1-push-scrambled").scramble
    assert all(TASKS[task.parameters["task"]].has_goal for task in ml45().tasks("validation", 50))


def test_a_task_without_a_port_goes_through_the_package():
    family = families.get("ml1-handle-press")
    family.horizon = 4
    found = family.run(family.tasks("test", 1), 1, nothing, 0)
    assert found["success"].shape == (1, 1)


def test_bad_inputs():
    with pytest.raises(QuickstudyError, match="Did you mean 'push'"):
        families.get("ml1-pusch")
    with pytest.raises(QuickstudyError, match="Did you mean 'hidden'"):
        ml1("push", goal="hiden")
    with pytest.raises(QuickstudyError, match="horizon >= 1"):
        ml1("push", horizon=0)
    with pytest.raises(QuickstudyError, match=r"within 0\.\.1"):
        ml1("push", noise=2.0)
    family = ml1("reach", horizon=3, threads=1)
    with pytest.raises(QuickstudyError, match="at least one is needed"):
        family.demonstrate(held(family), 0, 0)
    with pytest.raises(QuickstudyError, match=r"returns actions \(2, 1, 4\); got \(4,\)"):
        family.run(held(family), 1, lambda seen: np.zeros(4), 0)
    with pytest.raises(QuickstudyError, match="not finite"):
        family.run(held(family), 1, lambda seen: np.full((2, 1, 4), np.nan), 0)
    with pytest.raises(QuickstudyError, match="is not of the family"):
        family.run(held(ml1("push")), 1, nothing, 0)
    with pytest.raises(QuickstudyError, match="render mode"):
        family.make(family.task("test", 0), "human")


def test_an_environment_is_what_run_runs():
    family = ml1("reach", horizon=4, noise=0.0, threads=1)
    env = family.make(family.task("test", 0))
    seen, _ = env.reset(seed=3)
    assert not seen[36:].any()
    ends = [env.step(np.full(4, 0.5, np.float32)) for _ in range(4)]
    assert [step[3] for step in ends] == [False, False, False, True]
    assert not any(step[2] for step in ends)
    assert set(ends[0][4]) == {"success"}
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(seen, again)


def test_a_name_of_gymnasiums_opens_a_task():
    register()
    env = gymnasium.make("quickstudy/Push-v0", split="test", index=2)
    assert env.unwrapped.task.name == "ml1-push/test/2"


def warp_policy(family, tasks, shots=1) -> Policy:
    demonstrations = family.demonstrate(tasks, shots, 5)
    batch = collate(demonstrations, np.stack([family.hidden(task) for task in tasks]))
    learner = WARP.build(WARP.defaults(family.name, family), family)
    learner.standardise(batch)
    return SkillPolicy(learner, skills_after(learner, batch, shots))


def test_warp_goes_where_the_goal_is_now():
    """One demonstration of another goal: an open-loop replay could not."""
    family = ml1("reach", goal="visible", horizon=120, threads=1)
    tasks = held(family, 3)
    assert family.run(tasks, 2, warp_policy(family, tasks), 0)["success"].mean() == 1.0


def test_warp_shifts_by_the_object_first_and_by_the_goal_at_the_end():
    family = ml1("push", goal="visible")
    learner = WARP.build(WARP.defaults("ml1-push", family), family)
    x = torch.zeros(1, 3, 39)
    x[0, :, 4] = torch.tensor([0.0, 0.0, 0.2])  # the object moves at the last step
    x[0, :, 36] = 0.2
    skill = learner.adapt(Batch(x, torch.zeros(1, 3, 4), torch.ones(1, 3), torch.zeros(3)))
    now = torch.zeros(39)
    now[5], now[38] = 0.1, 0.3  # object 10 cm along y, goal 20 cm back along x and 30 cm up
    now[36] = 0.0
    _, skill = learner.act(skill, now)
    torch.testing.assert_close(learner._path(skill), torch.tensor([0.0, 0.1, 0.0]))
    ended = skill._replace(recorded=skill.recorded._replace(clock=torch.tensor(2)))
    torch.testing.assert_close(learner._path(ended), torch.tensor([-0.2, 0.0, 0.3]))


def test_warp_is_for_families_that_say_where_things_are():
    reason = WARP.why_not(families.get("sinusoid"))
    assert "where hand, object and goal are observed; 'sinusoid' does not" in reason
