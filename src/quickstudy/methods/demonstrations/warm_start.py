"""Training that starts from the base network of another run, as far as the two are alike."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from quickstudy.errors import QuickstudyError
from quickstudy.io import checkpoint
from quickstudy.io.progress import console
from quickstudy.learner import MetaLearner, recognition_loss


def start_from(learner: MetaLearner, run: Path) -> None:
    """Gives the base network the parameters of that of another run, where name and shape are the same.

    A network that embeds images and one that recognises them by their embeddings have the embedding in common.
    A head for another number of classes gives the mean of its rows to every class: all of them start alike.

    Raises:
        QuickstudyError: not a run, or none of its parameters fits.
    """
    where, own = run / "checkpoints/best", learner.state_dict()
    if not checkpoint.exists(where):
        raise QuickstudyError(f"'{run}' is no run to start from: it has no checkpoints/best.")
    found = renamed(checkpoint.load(where).tensors, own)
    there = {n: t for n, t in found.items() if n.startswith("base.") and n in own}
    if learner.base.criterion is recognition_loss:
        there = {n: for_classes(t, own[n]) if n.startswith("base.network.head.") else t for n, t in there.items()}
    fitting = {n: t for n, t in there.items() if own[n].shape == t.shape}
    if not any(n.startswith("base.network.") for n in fitting):
        raise QuickstudyError(f"No layer of the base network of '{run}' fits the one to be trained.")
    learner.load_state_dict({**own, **fitting})
    wanted = [n for n in own if n.startswith("base.network.")]
    taken = sum(n in fitting for n in wanted)
    console.print(
        f"{taken} of the {len(wanted)} tensors of the base network are taken from '{run}'.",
        markup=False,
        soft_wrap=True,
    )


_EMBEDS = "base.network.embedding."


def renamed(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A network that embeds images, by the names that it has in `own`: alone, or within a classifier."""
    within, wanted = (any(n.startswith(_EMBEDS) for n in some) for some in (tensors, own))
    if wanted and not within:
        return {n.replace("base.network.", _EMBEDS, 1): t for n, t in tensors.items()}
    if within and not wanted:
        kept = {n: t for n, t in tensors.items() if n.startswith(_EMBEDS) or not n.startswith("base.network.")}
        return {n.replace(_EMBEDS, "base.network.", 1): t for n, t in kept.items()}
    return tensors


def for_classes(head: Tensor, like: Tensor) -> Tensor:
    """A head's weight or bias [class, ...] for the number of classes of `like`: where it differs, its mean for each."""
    if head.shape == like.shape or head.shape[1:] != like.shape[1:]:
        return head
    return head.mean(0, keepdim=True).expand_as(like).clone()
