"""LeRobotDataset v3.0, read and written without LeRobot; v2.0 and v2.1, a file for each episode, are read.

    meta/info.json                               what the data set holds: frame rate, features, where the files are
    meta/stats.json                              mean, deviation, range and quantiles of each feature
    meta/tasks.parquet                           the task labels; the label is the pandas index
    meta/episodes/chunk-000/file-000.parquet     one row an episode: its task, its length, its files, its statistics
    data/chunk-000/file-000.parquet              one row a step, many episodes in a file
    videos/<camera>/chunk-000/file-000.mp4       the cameras' frames, many episodes in a file

Observations are all numeric features 'observation.…' one after another, in the order of info.json; what we write has
one, 'observation.state'. The format is Hugging Face's (Cadene et al., LeRobot, 2024; codebase version 3.0).
"""

from quickstudy.datasets.lerobot.layout import INFO, VERSION
from quickstudy.datasets.lerobot.reading import is_one, load
from quickstudy.datasets.lerobot.writing import save

__all__ = ["INFO", "VERSION", "is_one", "load", "save"]
