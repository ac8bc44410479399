"""A disk that takes no more: one sentence, status 2, nothing half-written, whatever the format."""

import subprocess
import sys

import pytest

LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000,) * 2); "
RECORD = (
    "from quickstudy.cli import main; import sys; "
    "main(['record', 'point-navigation', '--tasks', '60', '--demos', '10', '--rate', '10', *sys.argv[1:]])"
)


@pytest.mark.parametrize("format", ["minari", "lerobot", "npz", "csv"])
def test_recording_onto_a_full_disk(tmp_path, format):
    ending = f".{format}" if format in ("npz", "csv") else ""
    place = tmp_path / "set" / f"out{ending}"
    words = [sys.executable, "-c", LIMITED + RECORD, "--format", format, "--output", str(place)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 2, said
    assert "Traceback" not in said
    written = "".join(said.splitlines())
    assert f"{place.name}': " in written
    assert "File too large" in written
    assert len(said.strip().splitlines()) == 1
    assert not list(place.parent.iterdir())
