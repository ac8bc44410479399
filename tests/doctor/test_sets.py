"""The sets that the docs show, see `benchmarks.doctor_sets`: what is spoilt is found, what is good is left alone."""

import json
import os

import pytest
from benchmarks import doctor_sets

import commands
from quickstudy import doctor
from quickstudy.errors import QuickstudyError

WANTED = {
    "good-arm": set(),
    "good-point": {"told apart"},
    "spoilt-sensors": {
        "finite", "wrapped angles", "observation jumps", "action jumps", "dead", "held actions", "frozen in the middle",
        "gripper", "too fast", "following", "beside the states", "far observations", "far actions", "frozen states",
    },
    "spoilt-timing": {"even", "order", "rates", "gaps"},
    "spoilt-episodes": {
        "too short", "under a second", "lengths", "twice", "same actions", "idle starts", "held actions", "pinned",
        "too fast", "shift", "action jumps",
    },
    "spoilt-tasks": {"number", "episodes", "balance", "merged", "placeholders"},
    "spoilt-files": {
        "readable", "features", "total_frames", "total_episodes", "total_tasks", "frame_index", "index", "statistics",
        "other files", "frame rate", "resolution", "length", "shows nothing", "frozen",
    },
}  # fmt: skip
"""What is found by the other two tools as well, and more; of the spoilt sets at least this."""


@pytest.mark.parametrize("name", WANTED)
def test_what_is_spoilt_is_found(tmp_path, name):
    path = tmp_path / "my set"
    doctor_sets.SETS[name](path)
    findings = doctor.of_files(path)
    try:
        findings += doctor.examine(path)[1]
    except QuickstudyError as error:
        findings.append(doctor.unreadable(path, error))
    told = {one.point for one in findings if one.verdict != "good"}
    assert told >= WANTED[name]
    assert name.startswith("spoilt") or told == WANTED[name]
    assert all(one.remedy for one in findings if one.verdict != "good")
    json.dumps([one.said for one in findings])


@pytest.fixture
def small(tmp_path):
    return doctor_sets.write(tmp_path / "set", doctor_sets.arm(tasks=2, each=2, steps=20))


def _told(path):
    return {one.point for one in doctor.of_files(path) if one.verdict != "good"}


def test_a_whole_set_has_no_finding(small):
    assert _told(small) == set()


def _no_video(path):
    next(path.glob("videos/*/*/*.mp4")).unlink()


def _cut_video(path):
    video = next(path.glob("videos/*/*/*.mp4"))
    video.write_bytes(video.read_bytes()[:200])


def _cut_table(path):
    table = next(path.glob("data/*/*.parquet"))
    table.write_bytes(table.read_bytes()[:-40])


def _link(path):
    os.symlink(path / "meta/info.json", path / "meta/copy.json")


def _info(**changes):
    def change(path):
        place = path / "meta/info.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("change", "point"),
    [
        (_no_video, "missing"), (_cut_video, "damaged"), (_cut_table, "tables"), (_link, "links"),
        (_info(data_path="data/all.parquet"), "data_path"), (_info(total_tasks=7), "total_tasks"),
        (lambda path: (path / "meta/tasks.parquet").unlink(), "tasks"),
        (lambda path: (path / "meta/stats.json").unlink(), "statistics"),
        (lambda path: (path / "meta/stats.json").write_text("[]"), "statistics"),
        (lambda path: (path / "meta/stats.json").write_text('{"action": 1}'), "statistics"),
    ],
)  # fmt: skip
def test_what_files_say(small, change, point):
    change(small)
    assert point in _told(small)


def test_the_command_takes_what_inspect_takes(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):  # two tasks are too few
        commands.quickstudy("data", "doctor", small, "--no-learning", "--rate", "15", "--action", "action")
    assert "15 steps a second" in " ".join(capsys.readouterr().out.split())
    assert "--mask" in commands.mistake(capsys, "data", "doctor", small, "--maks", "train")
