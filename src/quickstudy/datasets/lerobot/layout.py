"""Names in the format that its reading and its writing share."""

VERSION = "v3.0"
INFO = "meta/info.json"
IMAGES = "observation.images."
REWARD, SUCCESS = "next.reward", "next.success"

_CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA = f"data/{_CHUNK}.parquet"
EPISODES = f"meta/episodes/{_CHUNK}.parquet"
VIDEO = f"videos/{{video_key}}/{_CHUNK}.mp4"

ROWS = 8192
"""Steps that are kept before they are written, and read at once."""


def is_camera(dtype: str) -> bool:
    return dtype in ("video", "image")
