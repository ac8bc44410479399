"""HDF5 files of others: opened only where nothing in them reaches outside, or unpacks to more than it should."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from quickstudy.errors import QuickstudyError, sound
from quickstudy.io.files import check_size


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A file to read from.

    Raises:
        QuickstudyError: it is damaged.
    """
    with sound(f"'{path}' is not a whole HDF5 file"), h5py.File(path) as file:
        yield file


def check(path: Path) -> None:
    """Looks through all of a file once.

    Raises:
        QuickstudyError: it links to another file, or keeps its numbers in one; or an array says that it is far larger
            than the file.
    """
    with opened(path) as file:
        sizes, outside = [0], []

        def visit(name: str, link: h5py.HardLink | h5py.SoftLink | h5py.ExternalLink) -> None:
            found = file.get(name) if isinstance(link, h5py.HardLink) else None
            inside = found is not None or isinstance(link, h5py.SoftLink)
            if isinstance(found, h5py.Dataset):
                inside = not (found.external or found.is_virtual)
                sizes.append(int(found.nbytes))
            if not inside:
                outside.append(name)  # what is raised in here, h5py makes something else of

        file.visititems_links(visit)
        if outside:
            raise QuickstudyError(f"'{path}': '{outside[0][:60]}' lies in another file; that is not read.")
        check_size(path, max(sizes))
        check_size(path, sum(sizes) // 10)
