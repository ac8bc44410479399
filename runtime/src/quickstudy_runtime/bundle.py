"""A bundle: one file with everything that adapting and acting need. It is data: nothing in it is run but its graphs."""

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy_runtime import tensors
from quickstudy_runtime.errors import BundleError, place, shown

FORMAT, VERSION = "quickstudy-bundle", 1
_MEMBERS = ("manifest.json", "manifest.sha256", "begin.safetensors", "parameters.safetensors", "adapt.onnx", "act.onnx")
_MOST_MANIFEST, _MOST_BYTES, _MOST_WIDTH, _MOST_TEXT = 1 << 20, 1 << 28, 100_000, 200
_MOST_NUMBER = 1e300
_ELSEWHERE = b"\n\x08location\x12"
"""How an ONNX graph says that its weights lie in another file; a bundle's never do."""


@dataclass(frozen=True)
class Channels:
    """What an observation or an action is made of, by place.

    Attributes:
        names: of each channel.
        units: such as 'rad' or 'm', '' where nobody said.
        low, high: [channel]: of an observation, the range met in training; of an action, the limits that none leaves.
            Infinite where unknown.
        offset, scale: [channel] float64; a value less the one, over the other, is what the graphs take, float32.
        mean, deviation, met_low, met_high: [channel], what training met; NaN or infinite where unknown.
        rest: [channel], of an action: what keeps the robot where it is; NaN where its last value does. None where
            nobody said.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    met_low: np.ndarray
    met_high: np.ndarray
    rest: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Leaf:
    """One tensor of a skill: its name, its shape, -1 where that follows the demonstrations, and its type."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds, checked.

    Attributes:
        hash: SHA-256 of its manifest, which holds those of all other members.
        method, family, run, learns_from: what was trained, and from what it learns: 'demonstrations' or 'trials'.
        rate: steps a second, or None.
        skill: the tensors that a skill is made of.
        changes: those of them that acting changes.
        begin: the skill before any demonstration.
        parameters: tensors that graphs take beside, if any.
        graphs: 'act' and perhaps 'adapt', as ONNX.
    """

    hash: str
    method: str
    family: str
    run: str
    learns_from: str
    rate: float | None
    observation: Channels
    action: Channels
    skill: tuple[Leaf, ...]
    changes: tuple[str, ...]
    begin: dict[str, np.ndarray]
    parameters: dict[str, np.ndarray]
    graphs: dict[str, bytes]


def read(path: str | Path) -> Bundle:
    """A bundle from its file.

    Raises:
        BundleError: there is none, it is cut off or was changed, or it is of another version.
    """
    members = _members(Path(path))
    where = place(path)
    for name in ("manifest.json", "manifest.sha256", "begin.safetensors", "act.onnx"):
        if name not in members:
            raise BundleError(f"{where} is not a bundle of quickstudy: it has no {name}.")
    digest = hashlib.sha256(members["manifest.json"]).hexdigest()
    if members["manifest.sha256"].decode("ascii", "replace").strip() != digest:
        raise BundleError(f"{where} was changed after it was exported: the hash of its manifest differs.")
    try:
        manifest = json.loads(members["manifest.json"])
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is damaged: its manifest is not JSON.") from error
    for name in members:
        if name.endswith(".onnx") and _ELSEWHERE in members[name]:
            raise BundleError(f"{where} is not a bundle of quickstudy: {name} refers to another file.")
    return _checked(_Reader(manifest, where), members, digest)


def _members(path: Path) -> dict[str, bytes]:
    """The members by name; sizes are checked before anything is unpacked."""
    where = place(path)
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
            names = [info.filename for info in infos]
            if len(set(names)) != len(names) or not set(names) <= set(_MEMBERS):
                raise BundleError(f"{where} is not a bundle of quickstudy: it holds other files than a bundle has.")
            if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in infos):
                raise BundleError(f"{where} is not a bundle of quickstudy: it is packed in a way that no bundle is.")
            sizes = {info.filename: info.file_size for info in infos}
            if sum(sizes.values()) > _MOST_BYTES or sizes.get("manifest.json", 0) > _MOST_MANIFEST:
                raise BundleError(f"{where} unpacks to more than a bundle does ({_MOST_BYTES >> 20} MB).")
            found = {}
            for info in infos:
                with file.open(info) as member:
                    found[info.filename] = member.read(info.file_size)
                    if len(found[info.filename]) != info.file_size or member.read(1):
                        raise BundleError(f"{where} is damaged: {info.filename} is not as long as it says.")
            return found
    except BundleError:
        raise
    except FileNotFoundError:
        raise BundleError(f"There is no file {where}.") from None
    except IsADirectoryError:
        raise BundleError(f"{where} is a folder; a bundle is one file.") from None
    except Exception as error:  # zipfile lets those of struct, zlib and the system through
        raise BundleError(f"{where} is not a whole bundle: it cannot be unpacked.") from error


class _Reader:
    """Takes typed values from JSON."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise BundleError(f"{where} is damaged: its manifest is not an object.")
        self.values, self.where = values, where

    def get(self, key: str, kind: Any, wanted: str) -> Any:
        value = self.values.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BundleError(f"{self.where} is damaged: '{key}' must be {wanted}; got {shown(value)}.")
        return value

    def text(self, key: str) -> str:
        return self._plain(key, self.get(key, str, "a text"))

    def part(self, key: str) -> "_Reader":
        return _Reader(self.get(key, dict, "an object"), f"{self.where}, {key}")

    def texts(self, key: str) -> tuple[str, ...]:
        found = self.get(key, list, "a list of texts")
        return tuple(self._plain(key, one) for one in found)

    def _plain(self, key: str, text: Any) -> str:
        """A text that can be shown to a person."""
        if not isinstance(text, str) or len(text) > _MOST_TEXT or not text.isprintable():
            raise BundleError(f"{self.where} is damaged: '{key}' must be short plain text; got {shown(text)}.")
        return text

    def numbers(self, key: str, width: int, missing: float) -> np.ndarray:
        """[width] float64; a null is `missing`, and so is all of it where there is none."""
        found = self.values.get(key)
        if found is None:
            return np.full(width, missing)
        good = isinstance(found, list) and len(found) == width
        if not good or not all(n is None or (type(n) in (int, float) and abs(n) < _MOST_NUMBER) for n in found):
            raise BundleError(f"{self.where} is damaged: '{key}' must be {width} finite numbers.")
        return np.array([missing if n is None else float(n) for n in found])


def _channels(reader: _Reader, is_action: bool) -> Channels:
    names = reader.texts("names")
    if not 1 <= len(names) <= _MOST_WIDTH or len(set(names)) != len(names):
        raise BundleError(f"{reader.where} is damaged: its channels need names, each one of its own.")
    width = len(names)
    units = reader.texts("units") if reader.values.get("units") else ("",) * width
    low, high = reader.numbers("low", width, -math.inf), reader.numbers("high", width, math.inf)
    if len(units) != width or (low > high).any():
        raise BundleError(f"{reader.where} is damaged: its units or limits do not fit its channels.")
    rest = None
    if is_action and reader.values.get("rest") is not None:
        rest = reader.numbers("rest", width, math.nan)
        if (rest < low).any() or (rest > high).any():
            raise BundleError(f"{reader.where} is damaged: what keeps the robot at rest lies outside its limits.")
    scale = reader.numbers("scale", width, 1.0)
    if not (scale > 0).all():
        raise BundleError(f"{reader.where} is damaged: its scale must be positive.")
    return Channels(
        names, units, low, high, reader.numbers("offset", width, 0.0), scale, reader.numbers("mean", width, math.nan),
        reader.numbers("deviation", width, math.nan), reader.numbers("met_low", width, -math.inf),
        reader.numbers("met_high", width, math.inf), rest,
    )  # fmt: skip


def _leaves(reader: _Reader) -> tuple[Leaf, ...]:
    leaves = []
    for one in reader.get("skill", list, "a list"):
        leaf = _Reader(one, f"{reader.where}, skill")
        shape, dtype = leaf.get("shape", list, "a list"), leaf.text("dtype")
        if not all(type(n) is int and -1 <= n <= _MOST_BYTES for n in shape) or dtype not in (
            "float32",
            "int64",
            "bool",
        ):
            raise BundleError(f"{leaf.where} is damaged: a tensor has the shape {shown(shape)} of {shown(dtype)}.")
        leaves.append(Leaf(leaf.text("name"), tuple(shape), dtype))
    return tuple(leaves)


def _checked(manifest: _Reader, members: Mapping[str, bytes], digest: str) -> Bundle:
    where = manifest.where
    if manifest.text("format") != FORMAT:
        raise BundleError(f"{where} is not a bundle of quickstudy.")
    version = manifest.get("version", int, "a whole number")
    if version != VERSION:
        raise BundleError(f"{where} is a bundle of version {shown(version)}; this runtime reads version {VERSION}.")
    files, held = manifest.part("files"), set(members) - {"manifest.json", "manifest.sha256"}
    if files.values.keys() != held:
        raise BundleError(f"{where} was changed after it was exported: it holds other files than its manifest says.")
    for name in sorted(held):
        said = files.part(name)
        if said.text("sha256") != hashlib.sha256(members[name]).hexdigest():
            raise BundleError(f"{where} was changed after it was exported: the hash of {name} differs.")
    learns_from = manifest.text("learns_from")
    if learns_from not in ("demonstrations", "trials"):
        raise BundleError(f"{where} is damaged: 'learns_from' must be demonstrations or trials.")
    rate = manifest.values.get("rate")
    if rate is not None and not (type(rate) in (int, float) and 1e-9 < rate < 1e9):
        raise BundleError(f"{where} is damaged: 'rate' must be a positive number; got {shown(rate)}.")
    leaves, changes = _leaves(manifest), manifest.texts("changes")
    begin, _ = tensors.load(members["begin.safetensors"], f"{where}, begin.safetensors")
    check_leaves(begin, leaves, f"{where}, begin.safetensors")
    if not set(changes) <= {leaf.name for leaf in leaves}:
        raise BundleError(f"{where} is damaged: acting changes tensors that a skill does not have.")
    parameters: dict[str, np.ndarray] = {}
    if "parameters.safetensors" in members:
        parameters, _ = tensors.load(members["parameters.safetensors"], f"{where}, parameters.safetensors")
    return Bundle(
        digest, manifest.text("method"), manifest.text("family"), manifest.text("run"), learns_from,
        None if rate is None else float(rate), _channels(manifest.part("observation"), False),
        _channels(manifest.part("action"), True), leaves, changes, begin, parameters,
        {name: members[f"{name}.onnx"] for name in ("act", "adapt") if f"{name}.onnx" in members},
    )  # fmt: skip


def check_leaves(arrays: Mapping[str, np.ndarray], leaves: tuple[Leaf, ...], where: str) -> None:
    """Raises BundleError unless arrays are the tensors of a skill, finite."""
    for leaf in leaves:
        array = arrays.get(leaf.name)
        fits = array is not None and array.ndim == len(leaf.shape) and array.dtype == np.dtype(leaf.dtype)
        if array is None or not fits or any(n not in (-1, m) for n, m in zip(leaf.shape, array.shape, strict=True)):
            raise BundleError(f"{where} does not hold the tensor {shown(leaf.name)} in the form {shown(leaf.shape)}.")
        if not np.isfinite(array).all():
            raise BundleError(f"{where} is damaged: the tensor {shown(leaf.name)} is not finite.")
    if len(arrays) != len(leaves):
        raise BundleError(f"{where} holds {len(arrays)} tensors; a skill of this bundle has {len(leaves)}.")
