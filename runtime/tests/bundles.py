"""A small learner as a bundle: its skill is the mean difference between actions and the first two observations."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from quickstudy_runtime import tensors


def _model(nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def adapt_graph():
    node = helper.make_node
    nodes = [
        node("Slice", ["support", "start", "end", "axis"], ["near"]),
        node("Slice", ["support", "y_start", "y_end", "axis"], ["y"]),
        node("Slice", ["support", "y_end", "m_end", "axis"], ["wide"]),
        node("Sub", ["y", "near"], ["apart"]),
        node("Mul", ["apart", "wide"], ["real"]),
        node("ReduceSum", ["real", "steps"], ["sum"], keepdims=0),
        node("ReduceSum", ["wide"], ["count"], keepdims=0),
        node("Div", ["sum", "count"], ["bias"]),
        node("Identity", ["zero"], ["clock"]),
    ]
    constants = [
        ("start", np.array([0])), ("end", np.array([2])), ("axis", np.array([2])), ("y_start", np.array([3])),
        ("y_end", np.array([5])), ("m_end", np.array([6])),
        ("steps", np.array([0, 1])), ("zero", np.zeros(1, "f4")),
    ]  # fmt: skip
    return _model(nodes, [("support", ["shot", "step", 6])], [("bias", [2]), ("clock", [1])], constants)


def act_graph(tick=0.5):
    node = helper.make_node
    nodes = [
        node("Slice", ["observation", "start", "end"], ["near"]),
        node("Add", ["near", "bias"], ["sum"]),
        node("Add", ["sum", "clock"], ["action"]),
        node("Add", ["clock", "tick"], ["next.clock"]),
    ]
    constants = [("start", np.array([0])), ("end", np.array([2])), ("tick", np.array([tick], "f4"))]
    inputs = [("bias", [2]), ("clock", [1]), ("observation", [3])]
    return _model(nodes, inputs, [("action", [2]), ("next.clock", [1])], constants)


def manifest(**changes):
    return {
        "format": "quickstudy-bundle", "version": 1, "quickstudy": "0.2.0", "run": "runs/small", "family": "small",
        "method": "mean", "learns_from": "demonstrations", "rate": 20.0,
        "observation": {"names": ["arm.0", "arm.1", "grip"], "units": ["rad", "rad", ""], "low": [-1, -1, 0],
                        "high": [1, 1, 1], "met_low": [-1, -1, 0], "met_high": [1, 1, 1], "mean": [0, 0, 0.5],
                        "deviation": [0.4, 0.4, 0.3]},
        "action": {"names": ["dx", "dy"], "units": [], "low": [-2, -2], "high": [2, 2], "rest": [0, None]},
        "skill": [{"name": "bias", "shape": [2], "dtype": "float32"},
                  {"name": "clock", "shape": [1], "dtype": "float32"}],
        "changes": ["clock"],
    } | changes  # fmt: skip


def write(path: Path, about=None, graphs=None, begin=None) -> Path:
    """Writes the bundle, with whatever a test wants otherwise."""
    members = {
        "begin.safetensors": tensors.save(begin or {"bias": np.zeros(2, "f4"), "clock": np.zeros(1, "f4")}, {}),
        "adapt.onnx": adapt_graph(),
        "act.onnx": act_graph(),
    } | (graphs or {})
    about = dict(about or manifest())
    about["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in members.items()
    }
    text = json.dumps(about).encode()
    members |= {"manifest.json": text, "manifest.sha256": hashlib.sha256(text).hexdigest().encode()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path
