import contextlib
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bundles
import quickstudy_runtime as runtime
from quickstudy_runtime import BundleError, Guard, InputError

DEMONSTRATION = (np.array([[0.0, 0.0, 0.5], [0.5, -0.5, 0.5]]), np.array([[0.1, 0.2], [0.6, -0.3]]))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundle") / "small.quickstudy")


@pytest.fixture(scope="module")
def robot(path):
    return runtime.load(path)


def test_load_adapt_act(robot):
    skill = robot.adapt([DEMONSTRATION])
    np.testing.assert_allclose(skill.act([0.0, 0.0, 0.0]), [0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(skill.act([0.0, 0.0, 0.0]), [0.6, 0.7], atol=1e-6)  # its clock went on
    skill.reset()
    np.testing.assert_allclose(skill.act([0.0, 0.0, 0.0]), [0.1, 0.2], atol=1e-6)
    assert skill.counts["acted"] == 3


def test_padding_and_several_demonstrations(robot):
    longer = tuple(np.concatenate([part, part[:1]]) for part in DEMONSTRATION)
    skill = robot.adapt([DEMONSTRATION, longer])
    np.testing.assert_allclose(skill.act(np.zeros(3)), [0.1, 0.2], atol=1e-6)


def test_channels_by_name_in_any_order(robot):
    skill = robot.adapt([{"observations": {"grip": [0.5, 0.5], "arm": DEMONSTRATION[0][:, :2]},
                          "actions": {"dy": DEMONSTRATION[1][:, 1], "dx": DEMONSTRATION[1][:, 0]}}])  # fmt: skip
    named = skill.act({"grip": 0.5, "arm.1": 0.25, "arm.0": 0.5, "camera": np.zeros((4, 4, 3))})
    np.testing.assert_allclose(named, [0.6, 0.45], atol=1e-6)


def test_a_demonstration_in_a_file(robot, tmp_path):
    file = tmp_path / "one.npz"
    np.savez(file, observations=DEMONSTRATION[0], actions=DEMONSTRATION[1][:, ::-1], action_names=["dy", "dx"])
    np.testing.assert_allclose(robot.adapt([file]).act(np.zeros(3)), [0.1, 0.2], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "at least one"),
        ([(DEMONSTRATION[0][:, :2], DEMONSTRATION[1])], r"\[step, 3\]"),
        ([(DEMONSTRATION[0], DEMONSTRATION[1][:1])], "2 observations and 1 actions"),
        ([(DEMONSTRATION[0] * np.nan, DEMONSTRATION[1])], r"'arm\.0' is nan"),
        ([(DEMONSTRATION[0] * 57.3, DEMONSTRATION[1])], r"'grip' is 28\.65; training had 0 to 1"),
        ([{"observations": {"arm": [[0, 0]]}, "actions": [[0, 0]]}], "lacks the channel 'grip'"),
        ([("a", "b")], "not numbers"),
        (["nowhere.npz"], "There is no file"),
        ([3], r"\(observations, actions\)"),
    ],
)
def test_demonstrations_that_cannot_be_used(robot, given, said):
    with pytest.raises(InputError, match=said):
        robot.adapt(given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([0, 0, np.nan], "not finite"),
        ([0, 0], "width"),
        ([0, 0, 50], "range"),
        ({"arm": [0, 0]}, "missing channel"),
        ("abc", "not numbers"),
        ({"arm": [0, 0, 0], "grip": 0}, "width"),
    ],
)
def test_a_bad_observation_holds_the_robot_or_is_refused(robot, given, reason):
    skill = robot.adapt([DEMONSTRATION])
    acted = skill.act([0.5, 0.5, 0.5])
    np.testing.assert_allclose(skill.act(given), [0.0, acted[1]])  # dx rests at 0, dy keeps its last value
    assert skill.counts[reason] == skill.counts["held"] == 1
    assert "not used" in skill.status
    strict = robot.adapt([DEMONSTRATION], Guard(on_bad="refuse"))
    with pytest.raises(InputError, match="not used"):
        strict.act(given)
    assert strict.counts["refused"] == 1


def test_stale_repeated_and_out_of_order(robot):
    now = [100.0]
    skill = runtime.Skill(robot, robot.bundle.begin, Guard(max_age=0.2, on_bad="refuse"), clock=lambda: now[0])
    skill.act(np.zeros(3), stamp=99.9, sequence=1)
    for stamp, sequence, said in [(99.9, 2, "not after"), (99.0, 2, "not after"), (99.95, 1, "came after"),
                                  (float("nan"), 3, "time stamp is nan")]:  # fmt: skip
        with pytest.raises(InputError, match=said):
            skill.act(np.zeros(3), stamp=stamp, sequence=sequence)
    now[0] = 101.0
    with pytest.raises(InputError, match=r"0\.900 s old"):
        skill.act(np.zeros(3), stamp=100.1, sequence=5)


def test_limits_slew_and_rate(robot):
    now = [0.0]
    skill = runtime.Skill(robot, robot.bundle.begin, Guard(slew=1.0, max_rate=10, margin=9), clock=lambda: now[0])
    np.testing.assert_allclose(skill.act([5, -5, 0]), [2, -2])
    now[0] = 0.05
    np.testing.assert_allclose(skill.act([-5, 5, 0]), [2, -2])  # too soon: the last one again
    now[0] = 0.5
    np.testing.assert_allclose(skill.act([-5, 5, 0]), [1.5, -1.5])
    assert (skill.counts["clipped"], skill.counts["slewed"], skill.counts["repeated"]) == (2, 1, 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.floats(width=64), min_size=0, max_size=4), min_size=1, max_size=6), st.floats(0, 100))
def test_every_action_is_finite_and_within_the_limits(robot, observations, margin):
    skill = robot.adapt([DEMONSTRATION], Guard(on_bad="hold", margin=margin))
    for observation in observations:
        action = skill.act(observation)
        assert np.isfinite(action).all()
        assert (np.abs(action) <= 2).all()


def test_a_skill_is_saved_and_loaded(robot, path, tmp_path):
    skill = robot.adapt([DEMONSTRATION])
    skill.act(np.zeros(3))
    skill.save(tmp_path / "skill.safetensors")
    again = runtime.load(path).load_skill(tmp_path / "skill.safetensors")
    np.testing.assert_allclose(again.act(np.zeros(3)), [0.1, 0.2], atol=1e-6)
    other = runtime.load(bundles.write(tmp_path / "other", bundles.manifest(run="another")))
    with pytest.raises(BundleError, match="another learner"):
        other.load_skill(tmp_path / "skill.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "x"}, "not a bundle"),
        ({"version": 2}, "version 2"),
        ({"version": "1"}, "'version' must be"),
        ({"rate": -1}, "'rate'"),
        ({"learns_from": "wishes"}, "learns_from"),
        ({"changes": ["wings"]}, "does not have"),
        ({"skill": [{"name": "bias", "shape": [3], "dtype": "float32"}]}, "'bias' in the form"),
        ({"skill": "x"}, "'skill' must be"),
        ({"observation": {"names": []}}, "need names"),
        ({"observation": {"names": ["a", "b", "c"], "low": [1, 1]}}, "'low' must be 3"),
        ({"action": {"names": ["dx", "dy"], "low": [1, 1], "high": [0, 0]}}, "limits"),
        ({"action": {"names": ["dx", "dy"], "low": [0, 0], "high": [1, 1], "rest": [5, 5]}}, "rest"),
    ],
)
def test_manifests_that_are_not_taken(tmp_path, changes, said):
    with pytest.raises(BundleError, match=said):
        runtime.load(bundles.write(tmp_path / "bad", bundles.manifest(**changes)))


def test_tampered_truncated_and_foreign_files(path, tmp_path):
    whole = path.read_bytes()
    for name, data in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BundleError, match="not a whole bundle"):
            runtime.load(tmp_path / name)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "changed", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b'"rate": 20.0', b'"rate": 99.0') if name == "manifest.json" else data)
    with pytest.raises(BundleError, match="changed after it was exported"):
        runtime.load(tmp_path / "changed")
    with zipfile.ZipFile(tmp_path / "more", "w") as new:
        new.writestr("../evil.py", "x")
    with pytest.raises(BundleError, match="other files"):
        runtime.load(tmp_path / "more")
    with pytest.raises(BundleError, match="no file"):
        runtime.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="a folder"):
        runtime.load(tmp_path)
    with pytest.raises(BundleError, match="cannot be run"):
        runtime.load(bundles.write(tmp_path / "graph", graphs={"act.onnx": b"no graph"}))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_is_a_traceback(path, tmp_path_factory, data):
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path_factory.mktemp("d") / "b"
    damaged.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(BundleError):  # one sentence, or the damage touched nothing that is read
        runtime.load(damaged)


def test_a_guard_that_does_not_fit_is_told_at_once(path):
    for guard, said in [(Guard(rest=[0.0]), "2 numbers"), (Guard(rest=[9, 9]), "outside the limits"),
                        (Guard(slew=[1, 2, 3]), "one number or 2")]:  # fmt: skip
        with pytest.raises(InputError, match=said):
            runtime.load(path, guard)
    with pytest.raises(InputError, match="at least 0"):
        Guard(margin=-1)


def test_without_a_known_rest_nothing_is_held(tmp_path):
    action = {"names": ["dx", "dy"], "low": [-2, -2], "high": [2, 2]}
    robot = runtime.load(bundles.write(tmp_path / "b", bundles.manifest(action=action)))
    with pytest.raises(InputError, match="not used"):
        robot.begin().act([np.nan] * 3)
    with pytest.raises(InputError, match="what keeps this robot"):
        robot.begin(Guard(on_bad="hold"))
