"""`quickstudy export`: one file with everything that adapting and acting need, for robots without PyTorch.

A zip of ONNX graphs, JSON and safetensors, which `quickstudy-runtime` reads: manifest.json says what it is and holds
the hashes of the rest; begin.safetensors is the skill before any experience; adapt.onnx and act.onnx are the learner.
How far they are from PyTorch is measured before anything is written.
"""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
import torch

from quickstudy import __version__
from quickstudy.data import Seen
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import as_support
from quickstudy.experiment import Experiment
from quickstudy.export.parity import ACTIONS, Parity, needs_packages, parity
from quickstudy.export.policies import Exported, of_demonstrations, of_trials
from quickstudy.io import files
from quickstudy.results import runs

_FEWEST = 256
"""Numbers of the smallest matrix that eight bits are worth while for."""
_SPARE = 0.1
"""Of the range of actions met in training, how far beyond it a robot may go where a family has no limits of its own."""

Precision = Literal["float32", "int8"]


@dataclass(frozen=True)
class Bundle:
    """What `export` wrote.

    Attributes:
        size: of the file, bytes.
        parity: how far it is from PyTorch, and how fast.
    """

    path: Path
    size: int
    parity: Parity


def export(run: Path, output: Path, precision: Precision = "float32", rest: tuple[float, ...] | None = None) -> Bundle:
    """Writes a run's learner as a bundle, whole or not at all.

    Args:
        output: a file that is not there yet.
        precision: of the graphs' weights.
        rest: the action that keeps the robot where it is, where its family does not say it.

    Raises:
        QuickstudyError: not a run folder, a method that has no graph, numbers that differ from PyTorch's, a package
            that is not installed, or the place is taken.
    """
    if output.exists():
        raise QuickstudyError(f"'{output}' is there already; name a place that is not.")
    _packages()
    experiment, learner = runs.load(run, adapting=True)
    family, method = experiment.family, experiment.method
    if method.role == "oracle":
        raise QuickstudyError(f"'{method.name}' receives what a robot does not know, and cannot act on one.")
    sizes = family.observation_size, family.action_size
    learner = learner.to("cpu").eval()
    made = of_trials(learner, *sizes) if experiment.by_trial else of_demonstrations(learner, *sizes)
    graphs = dict(made.graphs) if precision == "float32" else {n: _in_bytes(g) for n, g in made.graphs.items()}
    measured = parity(made, graphs, *_examples(experiment, learner, run))
    if precision == "float32" and measured.fault:
        raise QuickstudyError(f"The graphs of '{method.name}' {measured.fault}.")
    members = {f"{name}.onnx": graph for name, graph in graphs.items()}
    members["begin.safetensors"] = safetensors.numpy.save(dict(made.begin))
    manifest = _manifest(made, experiment, learner, run, precision, rest, measured)
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in members.items()
    }
    text = json.dumps(manifest, indent=1, allow_nan=False).encode()
    members |= {"manifest.json": text, "manifest.sha256": hashlib.sha256(text).hexdigest().encode()}
    with files.partial(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return Bundle(output, output.stat().st_size, measured)


def _manifest(
    made: Exported,
    experiment: Experiment,
    learner: Any,
    run: Path,
    precision: Precision,
    rest: tuple[float, ...] | None,
    measured: Parity,
) -> dict[str, Any]:
    family = experiment.family
    scaling, seen = getattr(learner, "scaling", None), getattr(learner, "seen", None)
    observation = _channels(
        family.observation_channels, family.observation_units, family.observation_size, "observation"
    )
    action = _channels(family.action_channels, family.action_units, family.action_size, "action")
    if seen is not None:
        for part, spread in ((observation, seen.observations), (action, seen.actions)):
            part |= {name: _plain(getattr(spread, name)) for name in ("mean", "deviation")}
            part |= {"met_low": _plain(spread.low), "met_high": _plain(spread.high)}
        observation |= {"low": observation["met_low"], "high": observation["met_high"]}
    if scaling is not None:
        observation |= {"offset": _plain(scaling.mean.numpy()), "scale": _plain(scaling.deviation.numpy())}
        action |= {"offset": _plain(scaling.action_mean.numpy()), "scale": _plain(scaling.action_deviation.numpy())}
    low, high = _limits(experiment, seen)
    action |= {"low": _plain(low), "high": _plain(high)}
    still = rest if rest is not None else family.rest
    if still is not None:
        if len(still) != family.action_size:
            raise QuickstudyError(f"An action of rest needs {family.action_size} numbers; got {len(still)}.")
        action["rest"] = _plain(np.array([np.nan if one is None else one for one in still], float))
    return {
        "format": "quickstudy-bundle",
        "version": 1,
        "quickstudy": __version__,
        "torch": torch.__version__,
        "run": run.resolve().name,
        "family": family.name,
        "method": experiment.settings.method,
        "learns_from": "trials" if experiment.by_trial else "demonstrations",
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "rate": family.rate,
        "horizon": family.horizon,
        "observation": observation,
        "action": action,
        "skill": [{"name": n, "shape": list(shape), "dtype": kind} for n, (shape, kind) in made.skill.items()],
        "changes": list(made.changes),
        "precision": precision,
        "parity": {"adapt": measured.adapt, "act": measured.act, "actions": ACTIONS},
    }


def _channels(names: tuple[str, ...], units: tuple[str, ...], width: int, what: str) -> dict[str, Any]:
    return {"names": list(names) or [f"{what}.{i}" for i in range(width)], "units": list(units)}


def _limits(experiment: Experiment, seen: Seen | None) -> tuple[np.ndarray, np.ndarray]:
    """What no action leaves: the family's own, or a little more than was met in training."""
    family, width = experiment.family, experiment.family.action_size
    if not family.scales_actions:
        return -np.ones(width), np.ones(width)
    if seen is None:
        return np.full(width, -np.inf), np.full(width, np.inf)
    low, high = seen.actions.low, seen.actions.high
    return low - _SPARE * (high - low), high + _SPARE * (high - low)


def _plain(values: np.ndarray) -> list[float | None]:
    """As JSON can hold it: null where there is no number."""
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values, float)]


def _examples(experiment: Experiment, learner: Any, run: Path) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Demonstrations as the graph takes them, one, and then several of other lengths; and observations to act on.

    They are made from the run's own example, or made up where it has none.
    """
    rng = torch.Generator().manual_seed(1)
    seen, done = experiment.family.observation_size, experiment.family.action_size
    path = runs.example_of(run)
    if path is None:
        x, y = (0.5 * torch.randn(1, 50, width, generator=rng) for width in (seen, done))
        mask = torch.ones(1, 50)
    else:
        x, y, mask, _ = as_support(learner, [Demonstration.load(path)])
    one = torch.cat([x, y, mask[..., None]], -1)
    several = one.repeat(3, 1, 1)
    several[1, one.shape[1] // 2 + 1 :, -1] = 0.0  # ends sooner
    several[2, :, :seen] += 0.1 * torch.randn(several[2, :, :seen].shape, generator=rng)
    observations = torch.randn(ACTIONS, seen, generator=rng)
    observations[: one.shape[1]] = one[0, :ACTIONS, :seen]
    return [one, several], observations


def _in_bytes(graph: bytes) -> bytes:
    """The graph with weights of eight bits, each row or column of a matrix with a scale of its own.

    They are made whole again when the graph is loaded, so that it is as fast as before, and nothing else is rounded.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_model_from_string(graph)
    kept, added, nodes = [], [], []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim < 2 or values.size < _FEWEST:
            kept.append(weight)
            continue
        small, scale = min((_rounded(values, axis) for axis in (0, -1)), key=lambda pair: _error(values, *pair))
        whole, factor = f"{weight.name}.int8", f"{weight.name}.scale"
        added += [numpy_helper.from_array(small, whole), numpy_helper.from_array(scale, factor)]
        nodes += [
            helper.make_node("Cast", [whole], [f"{weight.name}.cast"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{weight.name}.cast", factor], [weight.name]),
        ]
    everything = [*nodes, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend([*kept, *added])
    model.graph.node.extend(everything)
    return bytes(model.SerializeToString())


def _rounded(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers from -127 to 127, and the scale of each place along an axis."""
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    scale = np.abs(values).max(others, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1.0
    return np.rint(values / scale).astype(np.int8), scale


def _error(values: np.ndarray, small: np.ndarray, scale: np.ndarray) -> float:
    return float(np.square(small * scale - values).sum())


def _packages() -> None:
    if missing := needs_packages():
        raise QuickstudyError(
            f"Exporting needs the package {missing}, which is not installed: run \"pip install 'quickstudy[export]'\"."
        )
