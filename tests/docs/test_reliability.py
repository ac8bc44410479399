"""The page of promises names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_promise_has_its_test():
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    promises = [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "| :--"))
    ]
    assert len(promises) > 30
    for line in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", line)
        assert named, line
        for file, test in named:
            assert re.search(rf"^def {test or 'test_'}", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), line


def test_the_security_policy_leads_to_it():
    assert "docs/reliability.md" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
