"""A family whose tasks are on another machine: enough of it to adapt a learner that came from there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from quickstudy.datasets.episodes import About
from quickstudy.errors import QuickstudyError
from quickstudy.task import ObservationLayout, TaskFamily

_ALWAYS_KNOWN = (
    "observation_size", "action_size", "hidden_size", "horizon", "image", "labelled", "metric", "higher_is_better",
    "rate", "protocol",
)  # fmt: skip
_PERHAPS_KNOWN = (
    "learned_from", "has_expert", "secondary_metrics", "shots", "observation_unit", "episodes_per_task",
    "scales_actions", "observation_channels", "action_channels", "observation_units", "action_units",
)  # fmt: skip
"""What files of an earlier version do not say."""


def interface(family: TaskFamily) -> dict[str, Any]:
    """What a learner must know of its family, as plain data."""
    known = {name: _plain(getattr(family, name)) for name in (*_ALWAYS_KNOWN, *_PERHAPS_KNOWN)}
    layout = family.observation_layout
    return known | {
        "name": family.name,
        "observation_layout": layout and {name: [part.start, part.stop] for name, part in layout._asdict().items()},
    }


def about_of(family: TaskFamily) -> About:
    """Rate, names and units of a family's channels, as a recording has them."""
    return About(
        family.rate,
        family.observation_channels,
        family.action_channels,
        observation_units=family.observation_units,
        action_units=family.action_units,
    )


class RemoteFamily(TaskFamily):
    """See the module's text.

    Args:
        name: of the family, or the place of a user's own data.
        known: what `interface` made of it there.

    Raises:
        QuickstudyError: something is missing.
    """

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        missing = [key for key in _ALWAYS_KNOWN if key not in known]
        if missing:
            raise QuickstudyError(f"What is known of the family '{name}' lacks {missing[0]}.")
        self.name, self.sizes, self._where = known.get("name", name), {}, name
        self._learned_from = tuple(known.get("learned_from", ("demonstrations",)))
        for key in {*_ALWAYS_KNOWN, *_PERHAPS_KNOWN} & known.keys() - {"learned_from"}:
            setattr(self, key, tuple(known[key]) if isinstance(known[key], list) else known[key])
        if known.get("observation_layout"):
            parts = {part: slice(*ends) for part, ends in known["observation_layout"].items()}
            self.observation_layout = ObservationLayout(**parts)

    @property
    def learned_from(self) -> tuple[str, ...]:
        return self._learned_from

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        is_path = Path(self._where).is_absolute()
        what = f"The data '{self._where}' is gone" if is_path else f"The tasks of '{self.name}' are not on this machine"
        raise QuickstudyError(f"{what}: its learner can adapt to demonstrations, but not be evaluated here.")

    test_splits = property(_refuse)
    tasks = sample = hidden = demonstrate = run = _refuse


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
