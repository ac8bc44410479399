import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bundles
import fuzz
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
    for one in ([file], file, str(file)):
        np.testing.assert_allclose(robot.adapt(one).act(np.zeros(3)), [0.1, 0.2], atol=1e-6)
    np.savez(file, observations=DEMONSTRATION[0], actions=DEMONSTRATION[1], action_names=["dy"])
    with pytest.raises(InputError, match="action_names do not fit"):
        robot.adapt([file])


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
        (3, "a list of them"),
        ([DEMONSTRATION] * 100 + [tuple(part[:1].repeat(10_001, 0) for part in DEMONSTRATION)], "are too many"),
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
    acted = skill.act([0.5, 0.5, 0.5], sequence=np.int64(3), stamp=np.float32(2))
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
    skill = runtime.Skill(robot, robot.bundle.begin, Guard(slew=1.0, max_rate=10, margin=9), timer=lambda: now[0])
    np.testing.assert_allclose(skill.act([5, -5, 0]), [2, -2])
    now[0] = 0.05
    np.testing.assert_allclose(skill.act([-5, 5, 0]), [2, -2])  # too soon: the last one again
    now[0] = 0.5
    np.testing.assert_allclose(skill.act([-5, 5, 0]), [1.5, -1.5])
    assert (skill.counts["clipped"], skill.counts["slewed"], skill.counts["repeated"]) == (2, 1, 1)


NUMBERS = st.floats(width=64) | st.integers() | st.sampled_from([1e308, -1e308, 5e-324, 2**63, "x", None])
OBSERVATIONS = st.lists(NUMBERS, max_size=4) | st.dictionaries(
    st.sampled_from(["arm", "arm.0", "arm.1", "grip", "else"]), NUMBERS | st.lists(NUMBERS, max_size=2)
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(OBSERVATIONS, st.none() | NUMBERS, st.none() | NUMBERS, st.floats(-10, 10)), max_size=8),
    st.floats(0), st.none() | st.floats(0), st.none() | st.floats(0, exclude_min=True), st.none() | st.floats(0),
)  # fmt: skip
def test_every_action_is_finite_and_within_the_limits(robot, calls, margin, slew, max_rate, max_age):
    """Whatever comes, in whatever order, with whatever clocks: an action that could be sent, or one sentence."""
    now = [0.0]
    skill = runtime.Skill(
        robot, robot.adapt([DEMONSTRATION])._start, Guard("hold", None, margin, max_age, max_rate, slew),
        lambda: now[0], lambda: now[0],
    )  # fmt: skip
    skill.reset(last=[0.5, 0.5])
    for observation, stamp, sequence, passed in calls:
        now[0] += passed
        action = skill.act(observation, stamp=stamp, sequence=sequence)
        assert np.isfinite(action).all()
        assert (np.abs(action) <= 2).all()
        assert len(skill.status) <= 300
        assert skill.status.isprintable()
    assert sum(skill.counts[name] for name in ("acted", "held", "repeated")) == len(calls)


def test_no_value_is_made_up_for_a_channel_that_keeps_its_last_one(robot):
    skill = robot.begin()
    with pytest.raises(InputError, match="not used"):
        skill.act([np.nan] * 3)
    skill.reset(last=[0.3, 0.7])
    np.testing.assert_allclose(skill.act([np.nan] * 3), [0.0, 0.7])
    skill.reset()
    with pytest.raises(InputError, match="not used"):
        skill.act([np.nan] * 3)
    for last in ([1], [np.nan, 0], "x"):
        with pytest.raises(InputError, match="last must be"):
            skill.reset(last=last)


def test_a_clock_that_is_set_back_stops_nothing(robot):
    wall, passed = [1e9], [0.0]
    skill = runtime.Skill(
        robot, robot.bundle.begin, Guard(max_rate=10, max_age=0.2), lambda: wall[0], lambda: passed[0]
    )
    skill.act(np.zeros(3), stamp=wall[0])
    wall[0], passed[0] = wall[0] - 3600, 1.0
    np.testing.assert_allclose(skill.act([0.5, 0.5, 0]), [1.0, 1.0])
    skill.reset(last=[0, 0])
    skill.act(np.zeros(3), stamp=wall[0] + 5)
    assert "in the future" in skill.status


def test_numbers_too_large_for_the_learner_are_bad_input(tmp_path):
    about = bundles.manifest(observation={"names": ["a", "b", "c"]})
    skill = runtime.load(bundles.write(tmp_path / "b", about)).begin()
    skill.reset(last=[0, 0])
    skill.act([1e300, 0, 0])
    assert "too large" in skill.status
    with pytest.raises(InputError, match="too large"):
        runtime.load(tmp_path / "b").adapt([([[1e300, 0, 0]], [[0, 0]])])


def test_a_learner_that_forgets_itself_is_noticed(tmp_path):
    """An action may be finite while what is remembered is not; the next one would be lost."""
    begin = {"bias": np.zeros(2, "f4"), "clock": np.full(1, 3.4e38, "f4")}
    robot = runtime.load(bundles.write(tmp_path / "b", begin=begin))
    skill = robot.begin()
    assert np.isfinite(skill.act(np.zeros(3))).all()
    infinite = bundles.write(tmp_path / "c", graphs={"act.onnx": bundles.act_graph(tick=np.inf)})
    with pytest.raises(BundleError, match="does not act"):
        runtime.load(infinite)


def test_a_skill_is_saved_and_loaded(robot, path, tmp_path):
    skill = robot.adapt([DEMONSTRATION])
    skill.act(np.zeros(3))
    skill.save(tmp_path / "skill.safetensors")
    again = runtime.load(path).load_skill(tmp_path / "skill.safetensors")
    np.testing.assert_allclose(again.act(np.zeros(3)), [0.1, 0.2], atol=1e-6)
    other = runtime.load(bundles.write(tmp_path / "other", bundles.manifest(run="another")))
    with pytest.raises(BundleError, match="another learner"):
        other.load_skill(tmp_path / "skill.safetensors")
    with pytest.raises(BundleError, match="cannot be written"):
        skill.save(tmp_path / "nowhere" / "skill.safetensors")


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
        ({"run": "two\nlines"}, "short plain text"),
        ({"observation": {"names": ["a", "b", "\ud800"]}}, "short plain text"),
        ({"version": 10**400}, "version a int|version 1000"),
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
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "less", "w") as new:
        for name in old.namelist():
            if name != "adapt.onnx":
                new.writestr(name, old.read(name))
    with pytest.raises(BundleError, match="other files than its manifest"):
        runtime.load(tmp_path / "less")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "lzma", "w", zipfile.ZIP_LZMA) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(BundleError, match="packed in a way"):
        runtime.load(tmp_path / "lzma")
    with pytest.raises(BundleError, match="no file"):
        runtime.load(tmp_path / "nowhere")
    with pytest.raises(BundleError) as raised:
        runtime.load("long/" * 400 + "\nname")
    assert len(str(raised.value)) <= 300
    assert "\n" not in str(raised.value)
    with pytest.raises(BundleError, match="a folder"):
        runtime.load(tmp_path)
    with pytest.raises(BundleError, match="cannot be run"):
        runtime.load(bundles.write(tmp_path / "graph", graphs={"act.onnx": b"no graph"}))


def test_no_damage_is_a_traceback(path):
    found, broken = fuzz.fuzz(path.read_bytes(), 5, seed=1000, count=200)
    assert broken is None, broken
    for kind in fuzz.KINDS:  # damage that is always found out would test little
        assert found[f"{kind} refused"]
        assert found[f"{kind} used"]


def test_a_guard_that_does_not_fit_is_told_at_once(path):
    for guard, said in [(Guard(rest=[0.0]), "2 numbers"), (Guard(rest=[9, 9]), "outside the limits"),
                        (Guard(slew=[1, 2, 3]), "one number or 2")]:  # fmt: skip
        with pytest.raises(InputError, match=said):
            runtime.load(path, guard)
    for wrong in ({"margin": -1}, {"margin": "x"}, {"max_age": np.nan}, {"max_rate": 0}, {"slew": "x"},
                  {"slew": [1, np.nan]}, {"on_bad": 3}, {"margin": None}):  # fmt: skip
        with pytest.raises(InputError, match="must be"):
            Guard(**wrong)
    with pytest.raises(InputError, match="finite"):
        runtime.load(path, Guard(rest=[np.inf, 0]))


def test_without_a_known_rest_nothing_is_held(tmp_path):
    action = {"names": ["dx", "dy"], "low": [-2, -2], "high": [2, 2]}
    robot = runtime.load(bundles.write(tmp_path / "b", bundles.manifest(action=action)))
    with pytest.raises(InputError, match="not used"):
        robot.begin().act([np.nan] * 3)
    with pytest.raises(InputError, match="what keeps this robot"):
        robot.begin(Guard(on_bad="hold"))
