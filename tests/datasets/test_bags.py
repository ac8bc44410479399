"""ROS 1 and ROS 2 bags and MCAP files, written by rosbags as robots do."""

import sys
from pathlib import Path

import numpy as np
import pytest

from commands import mistake
from quickstudy import datasets
from quickstudy.cli import main
from quickstudy.errors import QuickstudyError
from quickstudy.settings import ReadingConfig

rosbags = pytest.importorskip("rosbags", reason="the extra 'ros' is not installed")

from rosbags import rosbag1, rosbag2  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

READING = ReadingConfig(observation=("/joint_states.position",), action=("/cmd_vel.linear.x", "/cmd_vel.angular.z"))
JOINTS = ("lift", "pan")
EPOCH = 1_700_000_000.0


def joints(store, names, values, stamp):
    types = store.types
    sec, nanosec = divmod(round(stamp * 1e9), 1_000_000_000)
    time = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    header = {"stamp": time, "frame_id": ""} | ({"seq": 0} if "ros1" in store_name(store) else {})
    return types["sensor_msgs/msg/JointState"](
        header=types["std_msgs/msg/Header"](**header),
        name=list(names),
        position=np.asarray(values, float),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )


def store_name(store) -> str:
    return "ros1" if "seq" in store.types["std_msgs/msg/Header"].__dataclass_fields__ else "ros2"


def twist(store, x, z):
    vector = store.types["geometry_msgs/msg/Vector3"]
    return store.types["geometry_msgs/msg/Twist"](linear=vector(x=x, y=0.0, z=0.0), angular=vector(x=0.0, y=0.0, z=z))


def write(path: Path, kind: str, messages) -> Path:
    """A bag of (topic, type, seconds, message); each message is made by a function of the types."""
    store = get_typestore(Stores.ROS1_NOETIC if kind == "bag" else Stores.ROS2_HUMBLE)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "bag":
        path = path.with_name(f"{path.name}.bag")
        writer = rosbag1.Writer(path)
    else:
        plugin = rosbag2.StoragePlugin.MCAP if kind == "mcap" else rosbag2.StoragePlugin.SQLITE3
        writer = rosbag2.Writer(path, version=8, storage_plugin=plugin)
    serialise = store.serialize_ros1 if kind == "bag" else store.serialize_cdr
    with writer:
        connections = {}
        for topic, msgtype, seconds, make in sorted(messages, key=lambda one: one[2]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=store)
            writer.write(connections[topic], round(seconds * 1e9), serialise(make(store), msgtype))
    return path


def drive(seconds=2.0, joint_rate=50.0, command_rate=10.0, start=EPOCH, late=0.0, names=JOINTS, swap=True):
    """A joint's position is its time, the other's minus that; commands are counted."""
    for i in range(int(seconds * joint_rate) + 1):
        t = i / joint_rate
        values = {"lift": t, "pan": -t}
        order = names[::-1] if swap and i % 2 else names
        yield ("/joint_states", "sensor_msgs/msg/JointState", start + t + late,
               lambda s, o=order, v=values, t=t: joints(s, o, [v[n] for n in o], start + t))  # fmt: skip
    for i in range(int(seconds * command_rate) + 1):
        yield ("/cmd_vel", "geometry_msgs/msg/Twist", start + i / command_rate,
               lambda s, i=i: twist(s, float(i), float(-i)))  # fmt: skip


@pytest.mark.parametrize("kind", ["bag", "db3", "mcap"])
def test_states_are_interpolated_and_commands_hold(tmp_path, kind):
    place = write(tmp_path / "pour_03", kind, drive())
    found = datasets.load(place, READING)
    (episode,) = found
    assert found.tasks == ["pour"]
    assert found.about.rate == 10  # the slowest topic's
    assert "no --rate was given" in found.notes[0]
    assert found.about.observations == ("/joint_states.position.lift", "/joint_states.position.pan")
    assert found.about.actions == ("/cmd_vel.linear.x", "/cmd_vel.angular.z")
    np.testing.assert_allclose(episode.observations[:, 0], np.arange(len(episode)) / 10, atol=1e-6)
    np.testing.assert_allclose(episode.observations[:, 1], -np.arange(len(episode)) / 10, atol=1e-6)
    assert episode.actions[:, 0].tolist() == list(range(len(episode)))
    assert len(episode) == 21
    (faster,) = datasets.load(place, ReadingConfig(READING.observation, READING.action, rate=20.0))
    assert faster.actions[:6, 0].tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(faster.observations[:6, 0], np.arange(6) / 20, atol=1e-6)


def test_a_single_file_of_a_bag(tmp_path):
    folder = write(tmp_path / "pour_1", "mcap", drive())
    (file,) = folder.glob("*.mcap")
    assert len(datasets.load(file, READING)) == 1


def test_a_folder_of_bags(tmp_path):
    for task in ("pour", "stir"):
        for i in range(2):
            write(
                tmp_path / "kitchen" / task / f"run{i}",
                "db3" if i else "bag",
                drive(swap=False, names=JOINTS[:: 1 - 2 * i]),
            )
    found = datasets.load(tmp_path / "kitchen", READING)
    assert found.counts == {"pour": 2, "stir": 2}
    for episode in found:  # one bag has the joints in the other order
        np.testing.assert_allclose(episode.observations[:, 0], np.arange(len(episode)) / 10, atol=1e-6)
    for i in range(2):
        write(tmp_path / "flat" / f"push-2024-05-0{i + 1}-10-00-00", "bag", drive())
        write(tmp_path / "flat" / f"pull_{i}", "bag", drive())
    assert datasets.load(tmp_path / "flat", READING).counts == {"push": 2, "pull": 2}


def test_two_nodes_publish_some_joints_each(tmp_path):
    def gripper():
        for i in range(41):
            t = i / 20
            yield ("/joint_states", "sensor_msgs/msg/JointState", EPOCH + t,
                   lambda s, t=t: joints(s, ["finger"], [float(t > 1)], EPOCH + t))  # fmt: skip

    place = write(tmp_path / "a", "mcap", [*drive(), *gripper()])
    (episode,) = found = datasets.load(place, READING)
    assert found.about.observations[2] == "/joint_states.position.finger"
    assert set(episode.observations[:, 2]) == {0.0, 1.0}  # nothing in between
    one = ReadingConfig(("/joint_states.position.pan",), ("/cmd_vel.linear.x",))
    assert datasets.load(place, one).about.observations == ("/joint_states.position.pan",)


def test_the_time_of_the_header_where_it_is_of_the_same_clock(tmp_path):
    place = write(tmp_path / "late", "bag", drive(late=0.05))
    (episode,) = datasets.load(place, READING)
    np.testing.assert_allclose(episode.observations[:, 0], episode.actions[:, 0] / 10, atol=1e-6)

    def simulated():
        for topic, kind, t, make in drive(swap=False):
            if topic == "/joint_states":
                yield topic, kind, t, lambda s, t=t: joints(s, JOINTS, [t - EPOCH, EPOCH - t], t - EPOCH)
            else:
                yield topic, kind, t, make

    (episode,) = datasets.load(write(tmp_path / "sim", "bag", simulated()), READING)
    np.testing.assert_allclose(episode.observations[:, 0], episode.actions[:, 0] / 10, atol=1e-6)


def turning(store, degrees, sign):
    """A pose that is turned about the vertical; q and -q are the same."""
    types, half = store.types, np.radians(degrees) / 2
    place = types["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0)
    turn = types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=sign * np.sin(half), w=sign * np.cos(half))
    return types["geometry_msgs/msg/Pose"](position=place, orientation=turn)


def test_quaternions_go_the_short_way(tmp_path):
    poses = [
        ("/pose", "geometry_msgs/msg/Pose", EPOCH + i / 10, lambda s, i=i: turning(s, 170 + i, (-1) ** i))
        for i in range(21)
    ]
    place = write(tmp_path / "turn", "mcap", [*poses, *drive()])
    (episode,) = datasets.load(place, ReadingConfig(("/pose.orientation",), ("/cmd_vel.linear.x",), rate=40.0))
    half = np.radians(170 + np.arange(len(episode)) / 4) / 2
    right = np.abs(episode.observations[:, 2] * np.sin(half) + episode.observations[:, 3] * np.cos(half))
    np.testing.assert_allclose(right, 1, atol=1e-6)


def without(some, topic, begin, end):
    return [one for one in some if one[0] != topic or not begin < one[2] - EPOCH < end]


def other_joints():
    """One topic, on which some messages have one pair of joints and some another that shares one."""
    for i in range(99):
        names = ("lift", "pan") if i % 2 else ("pan", "tilt")
        t = EPOCH + i / 50
        yield ("/joint_states", "sensor_msgs/msg/JointState", t, lambda s, n=names, t=t: joints(s, n, [0.0, 0.0], t))


SEEN, DID = ("/joint_states.position",), ("/cmd_vel",)


@pytest.mark.parametrize(
    ("messages", "reading", "sentence"),
    [
        (drive(), ReadingConfig(), "is read by topic, and --observation does not say which"),
        (
            drive(),
            ReadingConfig(SEEN),
            "first bag has /cmd_vel (geometry_msgs/msg/Twist, 21 messages), /joint_states (",
        ),
        (drive(), ReadingConfig(("/joints.position",), DID), "has no message on '/joints' for --observation"),
        (drive(), ReadingConfig(("/joint_states.velocity",), DID), "has no numbers '/joint_states.velocity'"),
        (drive(), ReadingConfig(("/joint_states.name",), DID), "has no numbers '/joint_states.name'"),
        (drive(), ReadingConfig((*SEEN, "/joint_states.position.pan"), DID), "names it twice"),
        (without(drive(), "/joint_states", 0.5, 1.5), READING, "on /joint_states between 0.500 and 1.500 s"),
        (without(drive(9), "/cmd_vel", 4, 5), READING, "nothing came on /cmd_vel between 4.000 and 5.000 s"),
        (
            [*without(drive(), "/joint_states", -1, 9), *other_joints()],
            READING,
            "comes in messages of different fields",
        ),
        (
            [*without(drive(), "/cmd_vel", -1, 9), *without(drive(start=EPOCH + 60), "/joint_states", -1, 99)],
            READING,
            "never come at the same time",
        ),
    ],
)
def test_what_is_refused(tmp_path, messages, reading, sentence):
    place = write(tmp_path / "a", "mcap", messages)
    with pytest.raises(QuickstudyError) as error:
        list(datasets.load(place, reading).demonstrations())
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_bags_that_differ(tmp_path):
    write(tmp_path / "all/a", "bag", drive())
    write(tmp_path / "all/b", "bag", [one for one in drive() if one[0] == "/cmd_vel"])
    with pytest.raises(QuickstudyError, match=r"b\.bag' has no message on '/joint_states'"):
        datasets.load(tmp_path / "all", READING)


def test_a_command_that_is_sent_now_and_then(tmp_path):
    sent = [("/gripper", "std_msgs/msg/Float64", EPOCH + t, lambda s, v=v: s.types["std_msgs/msg/Float64"](data=v))
            for t, v in ((0.0, 1.0), (0.2, 0.5), (1.7, 0.0))]  # fmt: skip
    place = write(tmp_path / "a", "bag", [*drive(), *sent])
    found = datasets.load(place, ReadingConfig(READING.observation, ("gripper.data",)))
    assert found.about.rate == 50
    (episode,) = found
    assert episode.actions[:, 0].tolist() == [1.0] * 10 + [0.5] * 75 + [0.0] * 16


@pytest.mark.parametrize("kind", ["bag", "mcap"])
def test_damaged(tmp_path, kind, capsys):
    place = write(tmp_path / "a", kind, drive())
    file = place if place.is_file() else next(place.glob("*.mcap"))
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"x" * 100):
        file.write_bytes(content)
        said = mistake(
            capsys, "data", "inspect", place, "--observation", "/joint_states.position", "--action", "/cmd_vel"
        )
        assert "is not a whole bag of ROS messages" in said


@pytest.mark.parametrize(("written", "as_if", "said"), [("ros2msg", "ros1msg", "ros1msg"), ("cdr", "xml", "xml")])
def test_messages_in_other_forms_are_refused(tmp_path, written, as_if, said):
    (file,) = write(tmp_path / "a", "mcap", drive()).glob("*.mcap")
    file.write_bytes(file.read_bytes().replace(written.encode(), as_if.encode()))
    with pytest.raises(QuickstudyError, match=f"has messages in {said}; those of ROS bags are read"):
        datasets.load(file, READING)


def test_without_the_extra(tmp_path, monkeypatch, capsys):
    place = write(tmp_path / "a", "bag", drive())
    for name in [name for name in sys.modules if name.split(".")[0] == "rosbags"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'quickstudy[ros]'" in mistake(capsys, "data", "inspect", place)


def test_converted(tmp_path):
    write(tmp_path / "bags/pour/1", "bag", drive())
    write(tmp_path / "bags/pour/2", "mcap", drive(seconds=1))
    words = [
        "--observation",
        "/joint_states.position",
        "--action",
        "/cmd_vel.linear.x,/cmd_vel.angular.z",
        "--rate",
        "5",
    ]
    for name in ("lerobot", "a.csv", "a.npz"):
        main(["data", "convert", str(tmp_path / "bags"), str(tmp_path / name), *words])
        found = datasets.load(tmp_path / name)
        assert found.about.rate == 5
        assert found.about.observations == ("/joint_states.position.lift", "/joint_states.position.pan")
        assert found.counts == {"pour": 2}
        assert [len(one) for one in found] == [11, 6]
