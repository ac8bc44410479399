"""What Minari itself says of our files, and files that it writes for us to read.

    python minari_peer.py read FOLDER OUTPUT.npz            loads a data set and writes what came
    python minari_peer.py write FOLDER OUTPUT.npz FORMAT    makes a data set in 'hdf5', 'arrow' or 'parquet'

Run in an environment with Minari; see docs/data.md. Nothing of quickstudy is imported here.
"""

import os
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
from minari import MinariDataset
from minari.data_collector import EpisodeBuffer


def read(folder: Path, output: Path) -> None:
    data = MinariDataset(folder / "data")
    episodes = list(data.iterate_episodes())
    found = {
        key: np.concatenate([np.asarray(getattr(one, key)) for one in episodes])
        for key in ("observations", "actions", "rewards", "truncations")
    }
    about = list(data.storage.get_episode_metadata(data.episode_indices))
    np.savez(
        output,
        **found,
        length=np.array([len(one) for one in episodes]),
        task=np.array([one["task"] for one in about]),
        success=np.concatenate([one.infos["success"] for one in episodes]),
        steps=data.total_steps,
    )


def write(folder: Path, output: Path, kind: str) -> None:
    """Five episodes of two parts of an observation, by Minari's own `create_dataset_from_buffers`."""
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    space = gym.spaces.Dict(
        {"place": gym.spaces.Box(-9, 9, (3,), np.float32), "button": gym.spaces.Box(-9, 9, (1,), np.float64)}
    )
    rng, buffers, kept = np.random.default_rng(0), [], []
    for number in range(5):
        steps = 4 + number
        seen = {
            "place": rng.normal(size=(steps + 1, 3)).astype("f4"),
            "button": rng.normal(size=(steps + 1, 1)),
        }
        actions = rng.uniform(-1, 1, (steps, 2)).astype("f4")
        rewards = rng.normal(size=steps)
        ends = np.arange(steps) == steps - 1
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=seen,
                actions=actions,
                rewards=list(rewards),
                terminations=list(ends),
                truncations=[False] * steps,
                infos={"success": np.append(False, ends)},
            )
        )
        kept.append((np.concatenate([seen["button"], seen["place"]], 1)[:-1], actions, rewards))
    data = minari.create_dataset_from_buffers(
        "made/up-v0",
        buffers,
        observation_space=space,
        action_space=gym.spaces.Box(-1, 1, (2,), np.float32),
        data_format=kind,
    )
    data.storage.update_episode_metadata([{"task": f"task {number % 2}"} for number in range(5)])
    parts = dict(zip(("observations", "actions", "rewards"), map(np.concatenate, zip(*kept, strict=True)), strict=True))
    np.savez(output, **parts)


if __name__ == "__main__":
    word, place, result, *more = sys.argv[1:]
    shutil.rmtree(place, ignore_errors=True) if word == "write" else None
    {"read": read, "write": write}[word](Path(place).resolve(), Path(result), *more)
