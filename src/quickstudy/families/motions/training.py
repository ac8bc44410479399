"""Training tasks of the motions: recorded ones, transformed, and made-up ones that vary as real demonstrations do.

Half of the tasks are recorded motions of the training split, rotated about the vertical, mirrored, scaled and with
another pace, all demonstrations of a task alike, so that they differ from each other as before. The other half are
smooth paths through random poses, whose demonstrations differ in start, way and timing: a longer stretch takes longer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from quickstudy.families.motions.trajectories import STEPS, Curves, at_phases, phases, warped_phases

MADE_UP = 0.5
"""Share of made-up tasks."""
DEMONSTRATIONS = 8
"""Of a made-up task."""


def sample(names: Sequence[str], rng: np.random.Generator) -> Mapping[str, Any]:
    """The parameters of a training task; `names` are the recorded motions that it may be made of."""
    made_up = rng.uniform() < MADE_UP
    return {"motion": "" if made_up else str(rng.choice(names)), "seed": int(rng.integers(1 << 31))}


def build(parameters: Mapping[str, Any], recorded: Mapping[str, Curves]) -> Curves:
    """The demonstrations of a training task; `recorded` are the curves of the recorded motions by name."""
    rng = np.random.default_rng(parameters["seed"])
    if not parameters["motion"]:
        return made_up(rng)
    found = recorded[parameters["motion"]]
    return transformed(found.some(rng.permutation(len(found.positions))), rng)


def transformed(found: Curves, rng: np.random.Generator) -> Curves:
    """A recorded motion rotated, mirrored, scaled and with another pace; a flat one in any plane."""
    positions, turned = found
    if not positions[..., 2].any():
        positions = positions @ Rotation.random(rng=rng).as_matrix().T
    matrix = Rotation.from_rotvec([0.0, 0.0, rng.uniform(-np.pi, np.pi)]).as_matrix()
    if rng.uniform() < 0.5:
        matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
    where = warped_phases(positions.shape[1], np.array([0.4]), rng)[0]
    size, angle = np.exp(rng.uniform(-0.5, 0.5, 2))
    # A rotation vector is an axis: seen in a mirror it turns the other way round.
    return Curves(
        size * at_phases(positions @ matrix.T, where),
        angle * np.linalg.det(matrix) * at_phases(turned @ matrix.T, where),
    )


def made_up(rng: np.random.Generator) -> Curves:
    """A smooth path through random poses, with demonstrations that vary."""
    n, phase = DEMONSTRATIONS, phases(STEPS)
    points = int(rng.integers(3, 7))
    poses = rng.normal(size=(points, 6)) * (np.array([1.0, 0.6]) * rng.uniform(0.4, 1.2, 2)).repeat(3)
    spread = np.exp(rng.uniform(np.log(0.03), np.log(0.2), 2)).repeat(3)
    passed = poses + spread * rng.normal(size=(n, points, 6))
    stretch = np.linalg.norm(np.diff(passed[..., :3], axis=1), axis=-1)
    share = rng.uniform(0.3, 1.0, points - 1) * (stretch / stretch.mean(0)) ** rng.uniform(0.0, 1.5)
    share = share * np.exp(rng.uniform(0.05, 0.3) * rng.normal(size=share.shape))
    when = np.concatenate([np.zeros((n, 1)), share.cumsum(1) / share.sum(1, keepdims=True)], 1)
    line = np.stack([through(*pair, phase) for pair in zip(when, passed, strict=True)])
    line = at_phases(smoothed(line, rng.uniform(0.02, 0.08)), warped_phases(STEPS, np.array([0.4]), rng)[0])
    return Curves(line[..., :3] - line[:, -1:, :3], line[..., 3:] - line[:1, :1, 3:])


def through(when: np.ndarray, values: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Values [point, width] that belong to the phases `when`, read at `phase`; eased in and out between points."""
    place = np.clip(np.searchsorted(when, phase, side="right") - 1, 0, len(when) - 2)
    part = (phase - when[place]) / (when[place + 1] - when[place])
    part = (part * part * (3.0 - 2.0 * part))[:, None]
    return values[place] + part * (values[place + 1] - values[place])


def smoothed(values: np.ndarray, width: float) -> np.ndarray:
    """Values [demonstration, step, width] averaged over a Gaussian window of this width of phase; ends are repeated."""
    steps = values.shape[1]
    reach = int(3 * width * steps)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (width * steps)) ** 2)
    padded = np.pad(values, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=1)
    return windows @ (kernel / kernel.sum())
