"""How far a learner's graphs are from PyTorch: on adapted skills, and on a thousand actions one after the other."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import QuickstudyError, one_line
from quickstudy.export.policies import Exported

ACTIONS = 1000
"""How many are compared."""
CLOSE = 1e-5
"""How far numbers may be from PyTorch's, in units of the largest of a tensor, at least 1."""
_AS_FAR = 4.0
"""How much farther than PyTorch's own a skill may be from that of float64, where both are farther than `CLOSE` apart:
Adam divides by the size of a gradient, and one that is nothing but rounding moves a parameter as far as any other."""
_REPEATS = 5


@dataclass(frozen=True)
class Parity:
    """What came of a comparison, in units of the largest number of a tensor, at least 1.

    Attributes:
        adapt: the largest difference of an adapted skill; None where nothing is adapted.
        act: the largest difference of an action, each after its own skill; after the same where rounding alone parts
            the two skills.
        rounding: how far PyTorch's own skill is from that of float64; looked at only where `adapt` is not close.
        adapt_ms, act_ms: median milliseconds by ONNX Runtime on one thread.
    """

    adapt: float | None
    act: float
    rounding: float
    adapt_ms: float | None
    act_ms: float

    @property
    def fault(self) -> str:
        """What is too far, as part of a sentence; empty where nothing is."""
        if self.adapt is not None and not self.adapt <= max(CLOSE, _AS_FAR * self.rounding):
            return f"adapt to a skill that is {self.adapt:.1e} from PyTorch's; at most {CLOSE:g} is accepted"
        return "" if self.act <= CLOSE else f"act {self.act:.1e} from PyTorch; at most {CLOSE:g} is accepted"


def parity(
    made: Exported, graphs: Mapping[str, bytes], supports: Sequence[Tensor], observations: Tensor, seed: int = 0
) -> Parity:
    """Adapts to each support by the graphs and by PyTorch, and acts along the observations.

    Args:
        graphs: those of `made`, or what was made of them.
        supports: demonstrations as the graph takes them, [shot, step, obs + act + 1] each; the last is acted after.
        observations: [step, obs].
        seed: of rewards and ends of episodes, for a learner by trial.

    Raises:
        QuickstudyError: ONNX Runtime cannot run a graph, or it gives a skill of other shapes.
    """
    sessions = {name: _session(graph) for name, graph in graphs.items()}
    leaves = [torch.from_numpy(leaf.copy()) for leaf in made.begin.values()]
    theirs = [leaf.numpy() for leaf in leaves]
    farthest, rounding, times = 0.0, 0.0, []
    adapt, exactly = made.adapt, made.exact
    for support in supports:
        if adapt is None or exactly is None:
            break
        leaves = [leaf.detach() for leaf in adapt(support)]
        for _ in range(_REPEATS):
            started = time.perf_counter()
            theirs = list(sessions["adapt"].run(None, {"support": support.numpy()}))
            times.append(1e3 * (time.perf_counter() - started))
        apart = _farthest(leaves, theirs)
        if not apart <= CLOSE:
            exact = [leaf.detach() for leaf in exactly(support)]
            rounding = max(rounding, _farthest(exact, [leaf.numpy() for leaf in leaves]))
            apart = max(apart, _farthest(exact, theirs))
            if apart <= _AS_FAR * rounding:  # of acting alone is asked then
                leaves = [torch.from_numpy(leaf.copy()) for leaf in theirs]
        farthest = max(farthest, apart)
    act, act_ms = _along(made, sessions["act"], leaves, theirs, observations, np.random.default_rng(seed))
    if not times:
        return Parity(None, act, 0.0, None, act_ms)
    return Parity(farthest, act, rounding, float(np.median(times[-_REPEATS:])), act_ms)


def _along(
    made: Exported,
    session: Any,
    leaves: list[Tensor],
    theirs: list[np.ndarray],
    observations: Tensor,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The largest difference of an action, and the median milliseconds of one."""
    names, farthest, times = list(made.skill), 0.0, []
    places = [names.index(name) for name in made.changes]
    wanted = [one.name for one in session.get_inputs()]
    action = None
    for x in observations:
        given = {"observation": x.numpy()}
        if "reward" in made.inputs:
            width = made.action_size
            given["previous_action"] = np.zeros(width, np.float32) if action is None else action
            given["reward"] = rng.random(1, np.float32)
            given["done"] = (rng.random(1) < 0.05).astype(np.float32)
        with torch.no_grad():
            ours = made.act(*leaves, *(torch.from_numpy(given[name].copy()) for name in made.inputs))
        every = dict(zip(names, theirs, strict=True)) | given
        started = time.perf_counter()
        found = session.run(None, {name: every[name] for name in wanted})
        times.append(1e3 * (time.perf_counter() - started))
        action = found[0]
        farthest = max(farthest, _apart(ours[0], action))
        for place, mine, other in zip(places, ours[1:], found[1:], strict=True):
            leaves[place], theirs[place] = mine, other
    return farthest, float(np.median(times))


def _session(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no base
        said = one_line(error).split("Error: ")[-1].rstrip(". ")
        raise QuickstudyError(f"ONNX Runtime cannot run the graph of this method ({said}).") from error


def _farthest(ours: Sequence[Tensor], theirs: Sequence[np.ndarray]) -> float:
    if len(ours) != len(theirs) or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=False)):
        raise QuickstudyError("The graph adapts to a skill of other shapes than PyTorch does.")
    return max((_apart(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _apart(ours: Tensor, theirs: np.ndarray) -> float:
    """The largest difference in units of the largest number, at least 1; infinite where one is not a number alone."""
    one, other = ours.detach().numpy().astype(float), theirs.astype(float)
    if one.shape != other.shape or not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return float("inf")
    most = np.nanmax(np.abs(one), initial=1.0, where=np.isfinite(one))
    return float(np.nanmax(np.abs(one - other), initial=0.0, where=np.isfinite(one)) / most)


def needs_packages() -> str:
    """The package that exporting needs and that is not installed; empty where all are."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        return str(error.name)
    return ""
