"""`quickstudy export`: one file with everything that adapting and acting need, for robots without PyTorch.

A zip of ONNX graphs, JSON and safetensors, which `quickstudy-runtime` reads: manifest.json says what it is and holds
the hashes of the rest; begin.safetensors is the skill before any experience; adapt.onnx and act.onnx are the learner.
How far they are from PyTorch is measured before anything is written.
"""

import hashlib
import json
import time
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
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import as_support
from quickstudy.experiment import Experiment
from quickstudy.export.policies import Exported, of_demonstrations, of_trials
from quickstudy.io import files
from quickstudy.results import runs

_ACTIONS = 1000
"""Actions that are compared with PyTorch's."""
_CLOSE = 1e-5
"""How far an adapted skill or an action may be from PyTorch's, in units of the largest of its numbers, at least 1."""
_DRIFTS = {"transfer", "transfer-equal-time", "scratch"}
"""Methods whose many steps of Adam make rounding larger where gradients vanish; of them actions are compared alone."""
_SPARE = 0.1
"""Of the range of actions met in training, how far beyond it a robot may go where a family has no limits of its own."""

Precision = Literal["float32", "int8"]


@dataclass(frozen=True)
class Bundle:
    """What `export` wrote.

    Attributes:
        size: of the file, bytes.
        adapt_difference, act_difference: the largest from PyTorch's numbers; None where nothing is adapted.
        adapt_ms, act_ms: median milliseconds by ONNX Runtime on one thread.
    """

    path: Path
    size: int
    adapt_difference: float | None
    act_difference: float
    adapt_ms: float | None
    act_ms: float


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
    if experiment.by_trial:
        made = of_trials(learner, *sizes)
    else:
        made = of_demonstrations(learner, *sizes, adapts=method.name != "no-adaptation")
    graphs = dict(made.graphs) if precision == "float32" else {n: _in_bytes(g) for n, g in made.graphs.items()}
    measured = _measured(made, graphs, experiment, learner, run, precision)
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
    return Bundle(output, output.stat().st_size, *measured)


def _manifest(
    made: Exported,
    experiment: Experiment,
    learner: Any,
    run: Path,
    precision: Precision,
    rest: tuple[float, ...] | None,
    measured: tuple[float | None, float, float | None, float],
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
        "parity": {"adapt": measured[0], "act": measured[1], "actions": _ACTIONS},
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


def _measured(
    made: Exported, graphs: dict[str, bytes], experiment: Experiment, learner: Any, run: Path, precision: Precision
) -> tuple[float | None, float, float | None, float]:
    """How far the graphs are from PyTorch on a demonstration of the run, and how long they take.

    Raises:
        QuickstudyError: too far, with whole weights.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    sessions = {name: onnxruntime.InferenceSession(graph, options) for name, graph in graphs.items()}
    rng = torch.Generator().manual_seed(0)
    observations = torch.randn(_ACTIONS, experiment.family.observation_size, generator=rng)
    leaves = [torch.from_numpy(leaf.copy()) for leaf in made.begin.values()]
    theirs, adapt_difference, adapt_ms = [leaf.numpy() for leaf in leaves], None, None
    if made.adapt is not None:
        support = _example(experiment, learner, run)
        observations[: support.shape[1]] = support[0, :_ACTIONS, : observations.shape[1]]
        leaves = [leaf.detach() for leaf in made.adapt(support)]
        given = {"support": support.numpy()}
        theirs, adapt_ms = _timed(lambda: sessions["adapt"].run(None, given), 5)
        if experiment.method.name in _DRIFTS:
            leaves = [torch.from_numpy(leaf) for leaf in theirs]
        adapt_difference = max((_apart(a.numpy(), b) for a, b in zip(leaves, theirs, strict=True)), default=0.0)
    names, difference, times = list(made.skill), 0.0, []
    places = [names.index(name) for name in made.changes]
    wanted = [one.name for one in sessions["act"].get_inputs()]
    extra = {
        "previous_action": torch.zeros(experiment.family.action_size),
        "reward": torch.zeros(1),
        "done": torch.zeros(1),
    }
    beside = list(extra.values()) if experiment.by_trial else []
    for x in observations:
        with torch.no_grad():
            ours = made.act(*leaves, x, *beside)
        every = (
            dict(zip(names, theirs, strict=True))
            | {"observation": x.numpy()}
            | {n: v.numpy() for n, v in extra.items()}
        )
        started = time.perf_counter()
        found = sessions["act"].run(None, {name: every[name] for name in wanted})
        times.append(1e3 * (time.perf_counter() - started))
        difference = max(difference, _apart(ours[0].numpy(), found[0]))
        for place, mine, other in zip(places, ours[1:], found[1:], strict=True):
            leaves[place], theirs[place] = mine, other
    if precision == "float32" and max(difference, adapt_difference or 0.0) > _CLOSE:
        raise QuickstudyError(
            f"The graphs of '{experiment.method.name}' differ from PyTorch by {adapt_difference or 0.0:.1e} in the "
            f"skill and {difference:.1e} in actions; at most {_CLOSE:g} is exported."
        )
    return adapt_difference, difference, adapt_ms, float(np.median(times))


def _timed(call: Any, times: int) -> tuple[list[np.ndarray], float]:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        made = call()
        taken.append(1e3 * (time.perf_counter() - started))
    return list(made), float(np.median(taken))


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.astype(float), other.astype(float)
    return float(np.abs(one - other).max(initial=0.0) / max(1.0, np.abs(one).max(initial=0.0)))


def _example(experiment: Experiment, learner: Any, run: Path) -> torch.Tensor:
    """A demonstration as the graph takes it, [1, step, obs + act + 1]: the run's own example, or a made-up one."""
    from quickstudy.demonstration import Demonstration

    path = runs.example_of(run)
    if path is not None:
        support = as_support(learner, [Demonstration.load(path)])
        return torch.cat([support.x, support.y, support.mask[..., None]], -1)
    rng = torch.Generator().manual_seed(1)
    width = experiment.family.observation_size + experiment.family.action_size
    return torch.cat([0.5 * torch.randn(1, 50, width, generator=rng), torch.ones(1, 50, 1)], -1)


def _in_bytes(graph: bytes) -> bytes:
    """The graph with weights of eight bits; products are done with dequantised ones."""
    import tempfile

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        onnx.save(onnx.load_model_from_string(graph), before)
        quantize_dynamic(before, after, weight_type=QuantType.QInt8)
        return after.read_bytes()


def _packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise QuickstudyError(
            f"Exporting needs the package {error.name}, which is not installed: run "
            "\"pip install 'quickstudy[export]'\"."
        ) from error
