"""The options of commands that read a data set: what of it is read, and how."""

from dataclasses import dataclass
from typing import Annotated, Literal

from quickstudy.cli.words import MaybeFloat, Names, optional
from quickstudy.settings import ReadingConfig


@dataclass(frozen=True)
class Reading:
    """The options of how a data set is read."""

    observation: Names = ()
    """The features, keys, columns or topics that are the observation, such as state,environment_state; what the format
    says by default."""
    action: Names = ()
    """Likewise of the action."""
    rate: MaybeFloat = None
    """Steps a second that the recordings are brought to; their own by default."""
    time_unit: Annotated[Literal["", "s", "ms", "us", "ns"], optional("{s,ms,us,ns}")] = ""
    """Of the time stamps, where the file does not say."""
    mask: Annotated[str, optional("STR")] = ""
    """The episodes to read, of those groups that an HDF5 file names; all by default."""

    @property
    def reading(self) -> ReadingConfig:
        return ReadingConfig(_parts(self.observation), _parts(self.action), self.rate, self.time_unit, self.mask)

    @property
    def given(self) -> list[str]:
        """The options that were given, to be said in the next command."""
        options = {"observation": ",".join(_parts(self.observation)), "action": ",".join(_parts(self.action))}
        options |= {"rate": f"{self.rate:g}" if self.rate else "", "time-unit": self.time_unit, "mask": self.mask}
        return [word for key, said in options.items() if said for word in (f"--{key}", said)]


def _parts(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for name in names for part in name.split(",") if part.strip())
