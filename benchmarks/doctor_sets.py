"""Writes two good and five spoilt LeRobot sets, for `quickstudy data doctor`, lerobot-doctor and lerobot-lint alike:

    python -m benchmarks.doctor_sets FOLDER

Each spoilt set has one kind of fault, in ways that users reported: sensors, timing, episodes, tasks, files.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy import datasets
from quickstudy.datasets import About, Episode
from quickstudy.datasets.videos import Film

RATE = 30.0
JOINTS = tuple(f"{name}.pos" for name in ("pan", "lift", "elbow", "wrist_flex", "wrist_roll", "gripper"))
ABOUT = About(RATE, JOINTS, JOINTS, ("front",), ("deg",) * 6, ("deg",) * 6)


def arm(tasks: int = 10, each: int = 5, steps: int = 60, seed: int = 0) -> list[Episode]:
    """An arm of SO-100's kind with joint targets in degrees, that reaches a pose of its task, closes its gripper there
    and is seen by a camera."""
    rng, made = np.random.default_rng(seed), []
    for task in range(tasks):
        goal = np.random.default_rng(1000 + task).uniform(-60, 60, 6)
        for _ in range(each):
            length = steps + int(rng.integers(-8, 9))
            start, seen, did = goal + rng.choice([-1, 1], 6) * rng.uniform(20, 60, 6), [], []
            for step in range(length):
                done = (1 - np.cos(np.pi * np.array([step, step + 1]) / length)) / 2
                now, target = start + (goal - start) * done[:, None]
                now[5], target[5] = 45 - 40 * done + task
                seen.append(now + rng.normal(0, 0.2, 6))
                did.append(target + rng.normal(0, 0.2, 6))
            made.append(Episode(f"pick up object {task}", np.array(seen, "f4"), np.array(did, "f4")))
    return [filmed(episode) for episode in made]


def filmed(episode: Episode) -> Episode:
    """With a camera that sees a bright square move by the first two joints, above a conveyor belt."""
    frames = np.full((len(episode), 48, 64, 3), 60, np.uint8)
    frames[:, ::8] = 110
    for i, (frame, (x, y)) in enumerate(zip(frames, episode.observations[:, :2], strict=True)):
        frame[40:, 4 * (i % 16) : 4 * (i % 16) + 4] = 240  # a conveyor belt below
        column, row = int(np.clip(32 + x / 3, 0, 52)), int(np.clip(24 + y / 4, 0, 36))
        frame[row : row + 12, column : column + 12] = (230, 180, 40)
    return replace(episode, images={"front": frames})


def point(tasks: int = 12, each: int = 6, steps: int = 40) -> list[Episode]:
    """A point that goes to the goal of its task, without a camera."""
    rng, made = np.random.default_rng(1), []
    for task in range(tasks):
        goal = rng.uniform(-1, 1, 2)
        for _ in range(each):
            state, seen, did = rng.uniform(-1, 1, 2), [], []
            for _ in range(steps):
                action = 0.08 * (goal - state) + 0.004 * rng.normal(size=2)
                seen.append(state)
                did.append(action)
                state = state + action
            made.append(Episode(f"reach goal {task}", np.array(seen, "f4"), np.array(did, "f4")))
    return made


def write(path: Path, episodes: list[Episode], about: About = ABOUT) -> Path:
    datasets.save(path, episodes, about, "lerobot")
    return path


def good_arm(path: Path) -> None:
    write(path, arm())


def good_point(path: Path) -> None:
    write(path, point(), About(20.0, ("x", "y"), ("x_velocity", "y_velocity")))


def spoilt_sensors(path: Path) -> None:
    """Numbers: a dead joint, a frozen state, spikes, an encoder that wraps, an inert gripper, NaN, held actions."""
    made = arm()

    def change(number: int, do: Callable[[np.ndarray, np.ndarray], None]) -> None:
        x, u = made[number].observations.copy(), made[number].actions.copy()
        do(x, u)
        made[number] = replace(made[number], observations=x, actions=u)

    def set_x(rows: slice, columns: object, value: Callable[[np.ndarray], object] | float) -> Callable[..., None]:
        def do(x: np.ndarray, _: np.ndarray) -> None:
            x[rows, columns] = value(x) if callable(value) else value

        return do

    change(1, set_x(slice(None), 1, 12.5))  # dead
    change(2, set_x(slice(15, 40), slice(None), lambda x: x[15]))  # frozen
    change(3, set_x(slice(20, 21), 0, 900.0))  # a spike
    change(4, set_x(slice(None), 4, lambda x: (np.linspace(0, 700, len(x)) + 180) % 360 - 180))  # wraps
    change(5, set_x(slice(None), 5, 20.0))  # the gripper
    change(7, lambda x, u: u.__setitem__(slice(10, 30), u[10]))  # held
    change(8, lambda x, u: np.clip(u, -8, 8, out=u))  # clipped
    change(9, lambda x, u: u.__setitem__((slice(25, 26), slice(None)), -u[25] * 9))  # all jump
    change(10, lambda x, u: u.__setitem__((slice(None), 2), -u[:, 2]))  # not followed
    write(path, made)
    # what save refuses: numbers that are not finite
    change_table(path, "data/*/*.parquet", "observation.state", _with_nan)


def _with_nan(column: pa.ChunkedArray) -> pa.Array:
    values = np.array(column.to_pylist(), "f4")
    values[400, 3] = np.nan
    return pa.array(list(values), column.type)


def spoilt_timing(path: Path) -> None:
    """Stamps: some go back, frames were dropped, one episode runs at half the rate."""
    write(path, arm())

    def change(column: pa.ChunkedArray) -> pa.Array:
        times = column.to_numpy().astype("f4").copy()
        starts = np.flatnonzero(times == 0)
        times[starts[2] + 20] = times[starts[2] + 18]
        times[starts[4] + 30 : starts[5]] += 0.5
        times[starts[6] : starts[7]] *= 2
        return pa.array(times, column.type)

    change_table(path, "data/*/*.parquet", "timestamp", change)


def spoilt_episodes(path: Path) -> None:
    """Episodes: one of one step, two cut short, one twice, actions twice, one long, idle starts, a shift half-way."""
    made = arm()
    made = [replace(e, observations=e.observations + 300 * (i > 30), actions=e.actions + 300 * (i > 30))
            for i, e in enumerate(made)]  # fmt: skip

    def cut(episode: Episode, length: int) -> Episode:
        return filmed(replace(episode, observations=episode.observations[:length], actions=episode.actions[:length]))

    made[0], made[3], made[6] = cut(made[0], 1), cut(made[3], 4), cut(made[6], 12)
    made[8] = replace(made[7])
    length = min(len(made[11]), len(made[12]))
    made[12] = filmed(replace(cut(made[12], length), actions=made[11].actions[:length]))
    made[11] = cut(made[11], length)
    long = [np.concatenate([getattr(e, part) for e in made[20:30]]) for part in ("observations", "actions")]
    made[20] = filmed(replace(made[20], observations=long[0], actions=long[1]))
    rest = [np.concatenate([np.repeat(getattr(made[15], part)[:1], 40, 0), getattr(made[15], part)])
            for part in ("observations", "actions")]  # fmt: skip
    made[15] = filmed(replace(made[15], observations=rest[0], actions=rest[1]))
    write(path, made)


def spoilt_tasks(path: Path) -> None:
    """Labels: placeholders, one instruction in three spellings, a task with two episodes, one with most of them."""
    made = arm(tasks=6, each=12)
    names = ["stack the cups", "Stack the cups. ", "stack  the cups", "test", "xy", "wipe the table"]
    keep = [12, 12, 12, 12, 1, 12]
    episodes = []
    for i, episode in enumerate(made):
        if i % 12 < keep[i // 12]:
            episodes.append(replace(episode, task=names[i // 12]))
    write(path, episodes + [replace(e, task="wipe the table") for e in arm(tasks=1, each=24, seed=3)])


def spoilt_files(path: Path) -> None:
    """Metadata and videos: totals, indices, statistics, features; a black, a hung, a short and a faster camera."""
    write(path, arm())
    info = json.loads((path / "meta/info.json").read_text())
    info |= {"total_frames": info["total_frames"] + 7, "total_tasks": 4, "total_episodes": 49}
    info["features"]["observation.force"] = {"dtype": "float32", "shape": [3], "names": None}
    info["features"]["observation.images.front"]["shape"] = [96, 128, 3]
    (path / "meta/info.json").write_text(json.dumps(info))
    (path / "meta/stats.json").write_text(json.dumps({"action": {"mean": [0.0] * 6}}))
    (path / "data/notes.txt").write_text("copied by hand\n")
    change_table(path, "data/*/*.parquet", "index", lambda column: pa.array(np.arange(len(column))[::-1]))
    change_table(path, "data/*/*.parquet", "frame_index", lambda column: pa.array(np.r_[1, column.to_numpy()[1:]]))
    video = next(path.glob("videos/*/*/*.mp4"))
    frames = np.concatenate([episode.images["front"] for episode in arm()])
    frames[:60] = 0
    frames[200:260] = frames[200]
    video.unlink()
    film = Film(video, 24.0, (48, 64))
    film.add(frames[:-25])
    film.close()


def change_table(root: Path, pattern: str, name: str, change: Callable[[pa.ChunkedArray], pa.Array]) -> None:
    """Puts another column of this name into the tables of a data set."""
    for file in root.glob(pattern):
        table = pq.read_table(file)
        pq.write_table(table.set_column(table.column_names.index(name), name, change(table[name])), file)


SETS: dict[str, Callable[[Path], None]] = {
    "good-arm": good_arm, "good-point": good_point, "spoilt-sensors": spoilt_sensors, "spoilt-timing": spoilt_timing,
    "spoilt-episodes": spoilt_episodes, "spoilt-tasks": spoilt_tasks, "spoilt-files": spoilt_files,
}  # fmt: skip


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in SETS.items():
        make(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
