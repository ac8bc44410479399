"""Small plots as pictures."""

from collections.abc import Sequence

import numpy as np


def plot(x: np.ndarray, y: np.ndarray, limits: tuple[float, float], goal: Sequence[float] | None = None) -> np.ndarray:
    """A curve, and a goal where there is one, uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.0, 1.5), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlim=limits, ylim=limits)
    axes.plot(x, y, marker="." if goal is not None else "")
    if goal is not None:
        axes.plot(*goal, "*", markersize=12)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
