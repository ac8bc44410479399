"""What LeRobot itself says of our files, and files that it writes for us to read.

    python lerobot_peer.py read FOLDER OUTPUT.npz    loads a data set frame by frame and writes what came
    python lerobot_peer.py write FOLDER OUTPUT.npz   records a data set, and writes what went into it

Run in an environment with LeRobot; see docs/data.md. Nothing of quickstudy is imported here.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch

warnings.filterwarnings("ignore")
try:
    import torchvision  # noqa: F401
except Exception:  # its compiled operators fit one release of torch alone; LeRobot's data sets use none of them
    for _name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[_name]
    _LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, _name):
            _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

KEYS = ("observation.state", "action", "next.reward", "next.success", "timestamp", "episode_index")


def read(folder: Path, output: Path) -> None:
    """Every frame by LeRobot's own indexing, with images where there are any."""
    data = LeRobotDataset("quickstudy/check", root=folder, video_backend="pyav")
    frames = [data[i] for i in range(len(data))]
    found = {key: np.stack([np.asarray(frame[key]) for frame in frames]) for key in KEYS if key in frames[0]}
    cameras = {key: np.stack([frame[key].numpy() for frame in frames]) for key in data.meta.camera_keys}
    stats = {f"stats/{key}/{what}": v for key, one in data.meta.stats.items() for what, v in one.items()}
    np.savez(output, task=np.array([frame["task"] for frame in frames]), fps=data.fps, **found, **cameras, **stats)


def write(folder: Path, output: Path) -> None:
    """Twelve tasks of four demonstrations: walks to a goal, with the pictures of a camera."""
    features = {
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "observation.environment_state": {"dtype": "float32", "shape": (2,), "names": None},
        "action": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "observation.images.front": {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
    }
    data = LeRobotDataset.create(
        "quickstudy/check", 20, features, root=folder, robot_type="made-up", vcodec="h264", video_backend="pyav"
    )
    rng, kept = np.random.default_rng(0), []
    for task in range(12):
        goal = rng.uniform(-1, 1, 3).astype("f4")
        for _ in range(4):
            place = rng.uniform(-1, 1, 3).astype("f4")
            for step in range(int(rng.integers(8, 16))):
                action = (0.2 * (goal - place)).astype("f4")
                frame = {
                    "observation.state": place,
                    "observation.environment_state": rng.normal(size=2).astype("f4"),
                    "action": action,
                    "next.reward": -np.linalg.norm(goal - place, keepdims=True).astype("f4"),
                    "observation.images.front": np.full((64, 96, 3), 8 * step, np.uint8),
                }
                data.add_frame({**frame, "task": f"go to place {task}"})
                kept.append({**frame, "task": f"go to place {task}", "grey": 8 * step})
                place = place + action
            data.save_episode()
    data.finalize()
    keys = [key for key in kept[0] if not key.startswith("observation.images")]
    np.savez(output, **{key: np.stack([one[key] for one in kept]) for key in keys})


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
