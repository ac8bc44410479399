"""A learner's pure functions as ONNX graphs: adapting, with its inner loop and its gradients, and acting.

`torch.export` refuses gradients inside of a graph, so a function is first traced by `make_fx` with symbolic shapes and
its parameters as inputs; what comes out has the gradients written out, and is exported. Loops over steps are one `Scan`
node each, see `quickstudy.methods.scanning`.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from quickstudy.errors import QuickstudyError, one_line
from quickstudy.methods.scanning import PlainProducts, exporting

_DYNAMIC = torch.export.Dim.DYNAMIC


def graph(
    learner: nn.Module,
    function: Callable[..., Any],
    examples: Sequence[Tensor],
    varying: Sequence[Sequence[int]],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> bytes:
    """A function of tensors that uses the learner's parameters, as an ONNX model.

    Args:
        function: from the examples' kind to a list of tensors.
        examples: inputs of sizes that stand for any others.
        varying: of each input, the axes whose length may be another.

    Raises:
        QuickstudyError: the exporter does not know what the function does.
    """
    called = _Called(learner, function)
    constants = {**{n: p.detach() for n, p in called.named_parameters()}, **dict(called.named_buffers())}
    names = list(constants)

    def pure(values: list[Tensor], *given: Tensor) -> list[Tensor]:
        with PlainProducts(), exporting(learner):
            return list(functional_call(called, dict(zip(names, values, strict=True)), given))

    shapes = tuple(dict.fromkeys(axes, _DYNAMIC) for axes in varying)
    try:
        with _quiet():
            traced = make_fx(pure, tracing_mode="symbolic")(list(constants.values()), *examples)
            held = _Held(traced, list(constants.values()))
            with torch.no_grad():
                program = torch.export.export(held, tuple(examples), dynamic_shapes={"given": shapes}, strict=False)
            made = torch.onnx.export(
                program, (), dynamo=True, verbose=False, optimize=False, input_names=list(inputs),
                output_names=list(outputs),
            )  # fmt: skip
            assert made is not None
            _tidy(made.model)
            return bytes(made.model_proto.SerializeToString())
    except Exception as error:  # exporters raise whatever they stumble over
        cause = error
        while isinstance(cause.__cause__, Exception):  # the outermost one is a page of advice
            cause = cause.__cause__
        said = one_line(cause).split("Exported program")[0][:200].rstrip(". ")
        raise QuickstudyError(
            f"The exporter cannot write this method as a graph ({type(cause).__name__}: {said})."
        ) from error


class _Called(nn.Module):
    """A function as a module that holds the learner, so that `functional_call` can replace its parameters."""

    def __init__(self, learner: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.learner, self.function = learner, function

    def forward(self, *given: Tensor) -> Any:
        return self.function(*given)


class _Held(nn.Module):
    """A traced function with its constants as buffers."""

    def __init__(self, traced: nn.Module, constants: Sequence[Tensor]) -> None:
        super().__init__()
        self.traced, self.count = traced, len(constants)
        for i, constant in enumerate(constants):
            self.register_buffer(f"constant{i}", constant)

    def forward(self, *given: Tensor) -> Any:
        return self.traced([getattr(self, f"constant{i}") for i in range(self.count)], *given)


def _tidy(model: Any) -> None:
    """Inlines, folds constants and removes what nothing uses."""
    import onnx_ir.passes.common as common
    from onnx_ir.passes import Sequential
    from onnxscript.optimizer import _constant_folding as folding

    Sequential(
        common.InlinePass(),
        folding.FoldConstantsPass(
            shape_inference=True,
            input_size_limit=folding.DEFAULT_CONSTANT_FOLD_INPUT_SIZE_LIMIT,
            output_size_limit=folding.DEFAULT_CONSTANT_FOLD_OUTPUT_SIZE_LIMIT,
        ),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
        common.ClearMetadataAndDocStringPass(),
    )(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on what it tries."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
