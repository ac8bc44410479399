"""What goes over the wire: msgpack with arrays as the field's policy clients (openpi-client) pack them."""

import contextlib
import math
from typing import Any

import numpy as np

from quickstudy_runtime.errors import InputError

try:
    import msgpack
except ImportError as missing:  # pragma: no cover
    raise ImportError("Serving needs two more packages: pip install 'quickstudy-runtime[serve]'.") from missing

MOST_BYTES = 16 << 20
"""The longest message."""


def pack(message: Any) -> bytes:
    """The bytes of a message of plain values and arrays."""
    return bytes(msgpack.packb(message, default=_plain))


def unpack(data: bytes) -> Any:
    """A message from its bytes.

    Raises:
        InputError: it is not such a message.
    """
    try:
        return msgpack.unpackb(data, object_hook=_array, strict_map_key=False)
    except InputError:
        raise
    except Exception as error:  # msgpack and NumPy raise ValueError, kinds of their own, TypeError and more
        raise InputError("The message is not msgpack of plain values and arrays.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic) and value.dtype.kind in "fiub":
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent.")


def _array(found: dict[Any, Any]) -> Any:
    if b"__ndarray__" in found:
        kind, shape, data = _kind(found), found.get(b"shape"), found.get(b"data")
        if not isinstance(shape, list | tuple) or not isinstance(data, bytes):
            raise InputError("An array of the message lacks its shape or its data.")
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * kind.itemsize != len(data):
            raise InputError("An array of the message does not have the size that it says.")
        return np.frombuffer(data, kind).reshape(shape)
    if b"__npgeneric__" in found:
        try:
            return _kind(found).type(found.get(b"data"))
        except (ValueError, TypeError, OverflowError):
            raise InputError("A number of the message is not of the type that it says.") from None
    return found


def _kind(found: dict[Any, Any]) -> np.dtype:
    kind: np.dtype = np.dtype(object)
    said = found.get(b"dtype")
    with contextlib.suppress(TypeError, ValueError, SyntaxError):
        kind = np.dtype(said) if isinstance(said, str) and len(said) < 10 else kind
    if kind.kind not in "fiub" or kind.names is not None or kind.subdtype is not None:
        raise InputError("An array of the message is of no type of plain numbers.")
    return kind
