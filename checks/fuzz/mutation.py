"""Damage that knows the form of what it damages: JSON, archives, tensors, tables, HDF5, text, and plain bytes.

Half of all damage lies behind lengths and checksums, which are computed anew, so that it reaches what comes after them.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable

import numpy as np

Bytes = Callable[[bytes, np.random.Generator], bytes]

ODD = [None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 10**400, 1e308, -1e308, 1e-320, 0.5, float("nan"), float("inf"),
       "", "x", "\n\x1b[31m", "[red]x[/y]", "../../etc/passwd", "/dev/zero", "é" * 5000, "nan", "1e6", "{}", [], {},
       [[]], [None], {"": None}, [1e300] * 3, "float32", "complex64", "object", 10**6, 10**9, -5]  # fmt: skip
_NUMBERS = ["nan", "inf", "-1", "0", "1e308", "1e400", "99999999999999999999", "1,5", "", "x", "-0", "0x10", "1e-320",
            "true", "\x1b[2J", "=1+1", "é", '"', "{", "../x", "/dev/zero", "1000000", "2147483648"]  # fmt: skip
_DTYPES = ["<f4", "<f8", "|i1", "|u1", "<c8", "<c16", "|O", "<U3", "|S3", "|b1", ">f4", "<f2", "<M8[ns]", "<i8", "|V4"]


def bent(value: object, rng: np.random.Generator) -> object:
    """Plain data with one of its parts replaced by something odd, left out, doubled, renamed or nested."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key, changed = list(value)[rng.integers(len(value))], dict(value)
        chance = rng.random()
        if chance < 0.12:
            del changed[key]
        elif chance < 0.2:
            changed[str(rng.choice(["a", "names", "\n", "observation.state", "\x1b]0;x"]))] = changed.pop(key)
        else:
            changed[key] = bent(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.85:
        changed, place = list(value), int(rng.integers(len(value)))
        chance = rng.random()
        if chance < 0.15:
            changed.append(changed[place])
        elif chance < 0.3:
            del changed[place]
        else:
            changed[place] = bent(value[place], rng)
        return changed
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.4:
        return [value + 1, value - 1, -value, value * 10**6, float(value), str(value)][rng.integers(6)]
    if rng.random() < 0.03:
        for _ in range(int(rng.choice([3, 100]))):
            value = [value]
        return value
    return ODD[rng.integers(len(ODD))]


def scratched(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with a few of them changed, cut out, doubled or cut off."""
    found = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place, kind = int(rng.integers(0, len(found) + 1)), rng.integers(0, 6)
        if kind == 0 and place < len(found):
            found[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and place < len(found):
            found[place] = int(rng.choice([0, 1, 127, 128, 255]))
        elif kind == 2:
            del found[place : place + int(rng.integers(1, 20))]
        elif kind == 3:
            found[place:place] = found[place : place + int(rng.integers(1, 20))]
        elif kind == 4 and rng.random() < 0.2:
            del found[place:]
        elif kind == 5 and place + 8 < len(found):
            found[place : place + 8] = int(rng.choice([0, 2**31, 2**40, 2**63 - 1])).to_bytes(8, "little")
    return bytes(found)


def of_json(data: bytes, rng: np.random.Generator) -> bytes:
    plain = json.loads(data)
    for _ in range(rng.integers(1, 4)):
        plain = bent(plain, rng)
    text = json.dumps(plain, indent=int(rng.integers(0, 2)))
    if rng.random() < 0.02:
        text = "[" * 100_000
    return text.encode()


def of_lines(data: bytes, rng: np.random.Generator) -> bytes:
    """Text with lines or single words changed."""
    lines = data.split(b"\n")
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(len(lines))), rng.integers(0, 8)
        if kind == 0:
            lines.insert(at, lines[int(rng.integers(len(lines)))])
        elif kind == 1 and len(lines) > 1:
            del lines[at]
        elif kind == 2 and lines[at].startswith((b"{", b"[")):
            try:
                lines[at] = json.dumps(bent(json.loads(lines[at]), rng)).encode()
            except ValueError:
                continue
        else:
            words = list(re.finditer(rb"[^\s,;:/<>=\"']+", lines[at]))
            if words:
                word = words[int(rng.integers(len(words)))]
                new = str(rng.choice(_NUMBERS)).encode()
                lines[at] = lines[at][: word.start()] + new + lines[at][word.end() :]
    return b"\n".join(lines)


def of_zip(data: bytes, rng: np.random.Generator) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = list(members)[rng.integers(len(members))]
    chance = rng.random()
    if chance < 0.08:
        del members[name]
    elif chance < 0.12:
        members[f"x{name}"] = members[name]
    else:
        members[name] = changed(members[name], rng)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return held.getvalue()


def of_npy(data: bytes, rng: np.random.Generator) -> bytes:
    """An array with values, dtype or shape of another kind, as a whole array or as a header that lies."""
    if rng.random() < 0.5:
        array = np.load(io.BytesIO(data), allow_pickle=False)
        kind = rng.integers(0, 6)
        if kind == 0:
            array = array.astype(str(rng.choice(["f2", "f4", "f8", "c8", "i1", "u1", "i8", "?", "U5", "M8[s]"])))
        elif kind == 1 and array.size and array.dtype.kind == "f":
            array = array.copy()
            array.flat[int(rng.integers(array.size))] = float(rng.choice([np.nan, np.inf, 1e300, -1e-320, 1e39]))
        elif kind == 2:
            array = np.stack([array, array]) if rng.random() < 0.5 else array[..., None]
        elif kind == 3 and array.ndim:
            array = array[int(rng.integers(0, 3)) :]
        elif kind == 4:
            array = array.reshape(-1)
        elif kind == 5 and array.size and array.dtype.kind in "iu":
            array = array.copy()
            array.flat[int(rng.integers(array.size))] = rng.choice([-1, 0, 1, 100, 2**31 - 1, -(2**31)])
        held = io.BytesIO()
        np.save(held, array, allow_pickle=False)
        return held.getvalue()
    length = int.from_bytes(data[8:10], "little")
    head = eval(data[10 : 10 + length], {"__builtins__": {}}, {"True": True, "False": False})  # a file of our own
    if rng.random() < 0.5:
        head["descr"] = str(rng.choice(_DTYPES))
    else:
        odd = [(), (0,), (10**12,), (2**31, 2**31), (-1,), (1, 1, 1), (10**6, 10**6), (3,)]
        head["shape"] = odd[rng.integers(len(odd))]
    text = (repr(head) if rng.random() < 0.9 else "[" * 3000).encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return data[:8] + len(text).to_bytes(2, "little") + text + data[10 + length :]


def of_safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    if rng.random() < 0.5:
        from safetensors.numpy import load, save

        tensors = load(data)
        name = list(tensors)[rng.integers(len(tensors))]
        held = io.BytesIO()
        np.save(held, tensors[name])
        with np.errstate(all="ignore"):
            try:
                tensors[name] = np.load(io.BytesIO(of_npy(held.getvalue(), rng)))
                return save(tensors, head.get("__metadata__"))
            except Exception:
                return scratched(data, rng)
    text = json.dumps(bent(head, rng)).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def of_parquet(data: bytes, rng: np.random.Generator) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    name = table.column_names[rng.integers(table.num_columns)]
    at, kind = table.column_names.index(name), rng.integers(0, 5)
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = table.slice(0, int(rng.integers(0, table.num_rows + 1)))
    elif kind == 2:
        table = table.append_column(name, table.column(name))
    else:
        values = table.column(name).to_pylist()
        if kind == 3:
            one = bent(values[0] if values else 0, rng)
            values = [one] * len(values)
        elif values:
            values[rng.integers(len(values))] = bent(values[0], rng)
        table = table.set_column(at, name, pa.array(values))
    held = io.BytesIO()
    pq.write_table(table, held)
    return held.getvalue()


def of_hdf5(data: bytes, rng: np.random.Generator) -> bytes:
    import h5py

    held = io.BytesIO(data)
    with h5py.File(held, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = names[rng.integers(len(names))]
        found, kind = file[name], rng.integers(0, 5)
        if kind == 0 or (kind == 4 and not len(found.attrs)):
            del file[name]
        elif kind == 4:
            key = list(found.attrs)[rng.integers(len(found.attrs))]
            said = found.attrs[key]
            if isinstance(said, str) and said.startswith(("{", "[")) and rng.random() < 0.8:
                found.attrs[key] = json.dumps(bent(json.loads(said), rng))
            else:
                odd = ["x", -1, 2.5, np.zeros(3), np.nan, 2**40, "\x1b[31m", b"\xff", h5py.Empty("f4")]
                found.attrs[key] = odd[rng.integers(len(odd))]
        elif isinstance(found, h5py.Dataset) and kind < 3:
            array = np.asarray(found)
            del file[name]
            saved = io.BytesIO()
            if array.dtype.kind in "OV":
                file[name] = np.zeros(3)
            else:
                np.save(saved, array)
                try:
                    new = np.load(io.BytesIO(of_npy(saved.getvalue(), rng)))
                    file[name] = new.astype("S") if new.dtype.kind == "U" else new
                except Exception:
                    file.create_dataset(name, (2**40,), "f8", chunks=(1024,))  # sparse: no byte of it is there
        else:
            del file[name]
            file[name] = [h5py.SoftLink("/"), h5py.ExternalLink("/dev/zero", "/"), h5py.SoftLink("/gone"), np.zeros(2)][
                rng.integers(4)
            ]
    return held.getvalue()


def _form(data: bytes) -> Bytes:
    if data[:4] == b"PK\x03\x04":
        return of_zip
    if data[:6] == b"\x93NUMPY":
        return of_npy
    if data[:4] == b"PAR1":
        return of_parquet
    if data[:4] == b"\x89HDF":
        return of_hdf5
    if data[8:9] == b"{" and data[:1] != b"{":
        return of_safetensors
    if data[:1] in (b"{", b"["):
        return of_lines if data.count(b"\n{") > 1 else of_json
    return of_lines if data[:200].isascii() and b"\0" not in data[:200] else scratched


def changed(data: bytes, rng: np.random.Generator, plain: Bytes = scratched) -> bytes:
    """One file, damaged by what its content is; by `plain` now and then, and where its form is lost."""
    if rng.random() < 0.15 or not data:
        return plain(data or b"x", rng)
    try:
        return _form(data)(data, rng)
    except Exception:  # damaged before, it has that form no more
        return plain(data, rng)


def damaged(files: dict[str, bytes], rng: np.random.Generator, plain: Bytes = scratched) -> dict[str, bytes]:
    """Some files, one of them damaged, lost, or under another's name."""
    if not files:
        return {"x": plain(b"x", rng)}
    name, chance = list(files)[rng.integers(len(files))], rng.random()
    if chance < 0.03 and len(files) > 1:
        return {key: content for key, content in files.items() if key != name}
    if chance < 0.05 and len(files) > 1:
        return files | {name: files[list(files)[rng.integers(len(files))]]}
    return files | {name: changed(files[name], rng, plain)}


def vouched(files: dict[str, bytes]) -> dict[str, bytes]:
    """A checkpoint whose config.json has the checksums of what lies beside it."""
    made = dict(files)
    for name, content in files.items():
        if not name.endswith("config.json"):
            continue
        try:
            config = json.loads(content)
            for other in config["sha256"]:
                beside = name.replace("config.json", other)
                if beside in made:
                    config["sha256"][other] = hashlib.sha256(made[beside]).hexdigest()
            made[name] = json.dumps(config).encode()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    return made
