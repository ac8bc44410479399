"""Channels by name: a recording in the order of another one, such as that which a learner was trained on."""

from dataclasses import replace

from quickstudy.datasets.episodes import About, Recording, numbered
from quickstudy.errors import QuickstudyError, listed
from quickstudy.io.progress import console


def as_in(recording: Recording, like: About) -> Recording:
    """A recording with the channels of `like` in their order, by their names.

    What nobody named is taken by place, which is said where names are at hand on one side; so are channels that are
    not used.

    Raises:
        QuickstudyError: a channel is lacking or has another unit, or two have one name and places differ.
    """
    wanted, ours = [], []
    for kind in ("observations", "actions"):
        names, theirs = (_named(about, kind) for about in (like, recording.about))
        if names and theirs:
            theirs = _as_spelt(theirs, names)
            _check_twice(names, theirs, recording)
            left_out = [name for name in theirs if name not in names]
            if left_out and set(names) <= set(theirs):
                _say(f"'{recording.path}' has {kind} that are not used: {listed(left_out)}.")
        elif names:
            _say(f"'{recording.path}' does not name its {kind}; they are taken by place: {listed(list(names), 20)}.")
        wanted.append(names if names and theirs else getattr(recording.about, kind))
        ours.append(theirs if names and theirs else getattr(recording.about, kind))
    spelt = _with_names(recording, *ours)
    arranged = recording if wanted == ours else spelt.in_order(*wanted)
    for kind, names in zip(("observation", "action"), wanted, strict=True):
        _check_units(arranged, like, kind, names)
    return arranged


def _named(about: About, kind: str) -> tuple[str, ...]:
    """Names of channels that somebody gave; empty where nobody did."""
    names: tuple[str, ...] = tuple(getattr(about, kind))
    return () if names == numbered(kind.removesuffix("s"), len(names)) else names


def _as_spelt(theirs: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Their names, as we spell those that differ by case, blanks or the kind before them alone."""
    if set(names) <= set(theirs):
        return theirs
    known = {_bare(name): name for name in names}
    return tuple(known.get(_bare(name), name) for name in theirs)


def _bare(name: str) -> str:
    return name.strip().casefold().removeprefix("observation.").removeprefix("state.").removeprefix("action.")


def _with_names(recording: Recording, observations: tuple[str, ...], actions: tuple[str, ...]) -> Recording:
    return replace(recording, about=replace(recording.about, observations=observations, actions=actions))


def _check_twice(names: tuple[str, ...], theirs: tuple[str, ...], recording: Recording) -> None:
    if names == theirs:
        return
    for name in names:
        if names.count(name) > 1 or theirs.count(name) > 1:
            raise QuickstudyError(
                f"'{recording.path}': two channels are called '{name}', so that names do not tell them."
            )


def _check_units(recording: Recording, like: About, kind: str, names: tuple[str, ...]) -> None:
    theirs, ours = (getattr(about, f"{kind}_units") for about in (recording.about, like))
    for name, now, then in zip(names, theirs, ours, strict=False):
        if now and then and now != then:
            raise QuickstudyError(
                f"'{recording.path}': the {kind} channel '{name}' is in {now}; it was in {then} in training."
            )


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, soft_wrap=True, highlight=False)
