"""Every reader with what a fuzzer found: damaged input is read or refused in a sentence, in bounded time and memory.

`make fuzz` looks for more; what it finds is kept in checks/fuzz/cases.
"""

import numpy as np
import pytest
from checks.fuzz import mutation
from checks.fuzz.engine import outcome
from checks.fuzz.packing import gathered, packed, unpacked
from checks.fuzz.readers import HERE, READERS

CASES = sorted(path for path in (HERE / "cases").glob("*/*") if path.is_file())
FINE = ("read", "refused")


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_before(path, tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    assert outcome(path.read_bytes(), path.parent.name, tmp_path / "input") in FINE


@pytest.mark.parametrize("name", READERS)
def test_some_damage(name, tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    reader, rng = READERS[name], np.random.default_rng(len(name))
    (tmp_path / "seeds").mkdir()
    seeds = [packed(gathered(place)) for place in reader.seeds(tmp_path / "seeds")]
    assert [outcome(seed, name, tmp_path / "input") for seed in seeds] == ["read"] * len(seeds)
    found = set()
    for i in range(20):
        files = mutation.damaged(unpacked(seeds[i % len(seeds)]), rng)
        found.add(outcome(packed(reader.repaired(files)), name, tmp_path / "input"))
    assert "refused" in found
    assert found <= set(FINE)
