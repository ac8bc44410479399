"""Several files as one input of the fuzzer, and back: name, length and content of each, one after the other."""

from pathlib import Path

_MOST = 1 << 22


def packed(files: dict[str, bytes]) -> bytes:
    parts = []
    for name, content in files.items():
        parts += [len(name.encode()).to_bytes(2, "little"), name.encode(), len(content).to_bytes(4, "little"), content]
    return b"".join(parts)


def unpacked(data: bytes) -> dict[str, bytes]:
    """Whatever can be made of these bytes; names lead nowhere but below the folder that they are written to."""
    files, at = {}, 0
    while at + 6 < len(data):
        length = int.from_bytes(data[at : at + 2], "little")
        name = data[at + 2 : at + 2 + length].decode("utf-8", "replace")
        at += 2 + length
        size = int.from_bytes(data[at : at + 4], "little")
        files[name] = data[at + 4 : at + 4 + min(size, _MOST)]
        at += 4 + size
    return files


def gathered(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def spread(files: dict[str, bytes], folder: Path) -> None:
    """Writes the files below a folder, as far as their names allow it."""
    for name, content in files.items():
        parts = [part for part in name.replace("\0", "").split("/") if part not in ("", ".", "..")]
        path = folder.joinpath(*(part[:60] for part in parts[:8])) if parts else folder / "_"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError:
            continue
