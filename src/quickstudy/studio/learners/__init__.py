"""Small trained learners that come with the package, one run folder each.

`tools/train_studio_learners.py` makes them; the card of each says how, and what it reached.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def packaged(family: str | None = None) -> list[Path]:
    """The run folders, of one family or of all."""
    found = sorted(path.parent for path in FOLDER.glob("*/card.json"))
    return [path for path in found if family is None or card(path)["family"] == family]


def card(run: Path) -> Mapping[str, Any]:
    """What a learner's card says: family, method, command, figures."""
    said: Mapping[str, Any] = json.loads((run / "card.json").read_text(encoding="utf-8"))
    return said
