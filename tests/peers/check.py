"""Checks our data sets against LeRobot itself, in an environment of its own.

    python tests/peers/check.py --lerobot /tmp/lerobot/bin/python

What we write must come out of theirs step by step, and what theirs writes must come out of ours and train; how to make
the environment is in docs/guides/own-data.md.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from quickstudy import datasets  # noqa: E402
from quickstudy.cli import main as quickstudy  # noqa: E402
from quickstudy.datasets import About  # noqa: E402
from quickstudy.results.evidence import Cell  # noqa: E402
from recorded import walks  # noqa: E402

COLUMNS = {
    "observations": "observation.state",
    "actions": "action",
    "rewards": "next.reward",
    "success": "next.success",
}


def peer(python: str, script: str, *arguments: object) -> None:
    subprocess.run([python, str(HERE / script), *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


def joined(episodes: list[datasets.Episode], name: str) -> np.ndarray:
    return np.concatenate([getattr(one, name) for one in episodes])


def check_lerobot(python: str, folder: Path) -> None:
    wrote = list(walks(5, 4, images=True))
    datasets.save(folder / "ours", wrote, About(20.0, ("x", "y"), ("right", "up")), "lerobot")
    peer(python, "lerobot_peer.py", "read", folder / "ours", folder / "ours.npz")
    came = np.load(folder / "ours.npz")
    for name, key in COLUMNS.items():
        np.testing.assert_array_equal(came[key].reshape(joined(wrote, name).shape), joined(wrote, name))
    assert came["task"].tolist() == [one.task for one in wrote for _ in range(len(one))]
    images = np.concatenate([one.images["front"] for one in wrote])
    away = np.abs(255 * came["observation.images.front"].transpose(0, 2, 3, 1) - images).max()
    print(f"LeRobot read {len(came['task'])} frames of ours: equal, images within {away:.1f} of 255")
    assert away < 4

    peer(python, "lerobot_peer.py", "write", folder / "theirs", folder / "theirs.npz")
    gone = np.load(folder / "theirs.npz")
    read = list(datasets.load(folder / "theirs").with_images())
    both = np.concatenate([gone["observation.state"], gone["observation.environment_state"]], 1)
    np.testing.assert_array_equal(joined(read, "observations"), both)
    np.testing.assert_array_equal(joined(read, "actions"), gone["action"])
    np.testing.assert_array_equal(joined(read, "rewards"), gone["next.reward"].ravel())
    assert [one.task for one in read for _ in range(len(one))] == gone["task"].tolist()
    grey = np.concatenate([one.images["front"] for one in read]).astype(int)
    away = np.abs(grey - gone["grey"][:, None, None, None]).max()
    print(f"we read {len(grey)} frames of LeRobot's: equal, images within {away} of 255")
    assert away < 4
    train(folder / "theirs", folder / "run")


def check_statistics(python: str, folder: Path) -> None:
    """LeRobot's own data set, read and written anew by us, has LeRobot's statistics."""
    recording = datasets.load(folder / "theirs")
    datasets.save(folder / "again", recording, recording.about, "lerobot")
    peer(python, "lerobot_peer.py", "read", folder / "again", folder / "again.npz")
    peer(python, "lerobot_peer.py", "read", folder / "theirs", folder / "first.npz")
    ours, theirs = np.load(folder / "again.npz"), np.load(folder / "first.npz")
    for key in (name for name in theirs.files if name.startswith(("stats/action/", "stats/next.reward/"))):
        # LeRobot reads quantiles off a histogram; of so few steps as here, interpolated ones differ from that.
        wide = 0.1 if "/q" in key else 1e-5
        np.testing.assert_allclose(ours[key], theirs[key], atol=wide, err_msg=key)
    print("statistics of actions and rewards: as LeRobot's")


def train(data: Path, run: Path) -> None:
    quick = ["--training.steps", "200", "--training.validate-every", "200", "--training.batching", "vmap"]
    quickstudy(["train", str(data), "--output-dir", str(run), *quick])
    quickstudy(["evaluate", str(run)])
    (cell,) = (Cell.read(path) for path in (run / "results").glob("*.json"))
    before, after = (row.value for row in cell.rows)
    print(f"trained on it: error {before:.4f} before, {after:.4f} after one demonstration of a held-out task")
    assert before is not None
    assert after is not None
    assert after < before / 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot", required=True, help="Python with LeRobot 0.4.4")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        check_lerobot(chosen.lerobot, Path(temporary))
        check_statistics(chosen.lerobot, Path(temporary))
