"""Curves of a training, for TensorBoard."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

_ROOM = 1 << 20
"""Bytes of a disk below which curves are left out."""


class Logger(Protocol):
    """Where training figures go."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...


class TensorBoard:
    """Logs to TensorBoard event files in `folder`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self._writer = folder, SummaryWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if shutil.disk_usage(self._folder).free < _ROOM:
            return  # its own thread would fail with a traceback; what matters is the checkpoint, which says it
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
