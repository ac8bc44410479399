"""Maps of real places: occupancy grids in the forms that robots and benchmarks use, and windows cut out of them.

- ROS `map_server`: a `.yaml` that names an image, https://wiki.ros.org/map_server (section 'Map format').
- MovingAI benchmark `.map`, https://movingai.com/benchmarks/formats.html.
- a plain image: what is light is free.
- `.npz`: every whole-numbered array [row, column] is a map as in ROS `nav_msgs/OccupancyGrid` (0 free, 100 occupied, -1
  or 255 unknown), every boolean one [row, column] or [map, row, column] has True where it is free; `names` may name
  the maps, `resolution` may say metres a cell, `origin` x, y and perhaps yaw of the lower left corner.

Row 0 is the top, unlike in `nav_msgs`. What is unknown is not free.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat

from quickstudy import datasets
from quickstudy.errors import QuickstudyError, listed, one_line, sound
from quickstudy.families.navigation.layouts import CELL, CELLS, HALF, place
from quickstudy.io import files
from quickstudy.io.progress import console

IMAGES = (".pgm", ".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
SUFFIXES = (".yaml", ".yml", ".map", ".npz", *IMAGES)
_PASSABLE = b".GS"
"""Of a MovingAI map: ground, ground and swamp."""
_FORMATS = ("PNG", "PPM", "BMP", "JPEG", "TIFF")
_CELLS, _YAML = 25_000_000, 1 << 16
"""Cells of an image and letters of a `.yaml` that are read."""
_LIGHT = 0.5
"""Of a plain image: from this brightness on (0 black, 1 white) a cell is free."""


@dataclass(frozen=True)
class OccupancyMap:
    """Where a place is free.

    Attributes:
        name: of the map, for people.
        free: [row, column] bool, row 0 is the top.
        resolution: metres a cell.
        origin: x and y of the lower left corner, metres.
        yaw: how far the map is turned about that corner, counterclockwise, radians.

    Raises:
        QuickstudyError: not such a grid, without a free cell, a resolution that is not positive, or a yaw that must be
            in degrees.
    """

    name: str
    free: np.ndarray
    resolution: float
    origin: tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0

    def __post_init__(self) -> None:
        if self.free.ndim != 2 or self.free.dtype != bool or self.free.size == 0:
            raise QuickstudyError(
                f"Map '{self.name}' must be bool [row, column]; got {self.free.dtype} {list(self.free.shape)}."
            )
        if not (np.isfinite(self.resolution) and self.resolution > 0):
            raise QuickstudyError(f"Map '{self.name}' needs a positive number of metres a cell; got {self.resolution}.")
        if not np.isfinite([*self.origin, self.yaw]).all() or abs(self.yaw) > 2 * np.pi:
            raise QuickstudyError(
                f"Map '{self.name}' needs an origin [x, y, yaw] in metres and radians within one turn; got "
                f"{[*self.origin, self.yaw]}."
            )
        if not self.free.any():
            raise QuickstudyError(
                f"Map '{self.name}' has no free space: all of its {self.free.size} cells are occupied."
            )

    @property
    def size(self) -> np.ndarray:
        """Width and height in metres, [2]."""
        return self.resolution * np.array(self.free.shape[::-1], dtype=float)

    def local(self, points: np.ndarray) -> np.ndarray:
        """Places [..., 2] of the map's frame as seen from its lower left corner, along its rows and columns."""
        apart = points - np.array(self.origin)
        return apart if self.yaw == 0 else apart @ self._turn

    @property
    def _turn(self) -> np.ndarray:
        """From the map's rows and columns to its frame, for points that stand on the left of a product, [2, 2]."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, -s], [s, c]])

    def window(self, centre: np.ndarray) -> np.ndarray:
        """The environment [CELLS, CELLS] about `centre` [2] (metres), True where occupied.

        A cell is occupied if any of some points in it is, a few for each cell of the map; so is all beyond the map.
        """
        each = max(1, int(np.ceil(CELL / self.resolution)))
        steps = (np.arange(CELLS * each) + 0.5) / each
        points = self.local(place(np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1)) + centre)
        columns = np.floor(points[..., 0] / self.resolution).astype(int)
        rows = len(self.free) - 1 - np.floor(points[..., 1] / self.resolution).astype(int)
        inside = (rows >= 0) & (rows < self.free.shape[0]) & (columns >= 0) & (columns < self.free.shape[1])
        free = inside & self.free[rows.clip(0, len(self.free) - 1), columns.clip(0, self.free.shape[1] - 1)]
        grid = ~free.reshape(CELLS, each, CELLS, each).all(axis=(1, 3))
        grid[[0, -1]] = grid[:, [0, -1]] = True
        return grid

    def draw_centre(self, rng: np.random.Generator) -> np.ndarray:
        """The middle [2] of a window that lies within the map as far as it can, and has a free cell in it."""
        row, column = divmod(int(np.flatnonzero(self.free)[rng.integers(self.free.sum())]), self.free.shape[1])
        at = self.resolution * np.array([column + 0.5, self.free.shape[0] - row - 0.5])
        at += rng.uniform(-0.5 * HALF, 0.5 * HALF, 2)
        low = np.minimum(HALF, self.size / 2)
        inside = np.clip(at, low, self.size - low)
        return np.asarray((inside if self.yaw == 0 else self._turn @ inside) + np.array(self.origin))


def read(path: Path, resolution: float) -> list[OccupancyMap]:
    """All maps of a file, or of all files in a folder that are of a known form.

    An image that a `.yaml` of the same folder names is read once, through it.

    Args:
        resolution: metres a cell where a file does not say.

    Raises:
        QuickstudyError: no such file, nothing of a known form, or a file that is not what it should be.
    """
    path = Path(path)
    if not path.exists():
        raise QuickstudyError(f"There is no map file or folder '{path}'.")
    with sound(f"'{path}' cannot be read as a map"):
        return _read(path, resolution)


def _read(path: Path, resolution: float) -> list[OccupancyMap]:
    if path.is_file():
        return _read_file(path, resolution)
    places = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    described = {_image_of(file, _yaml(file)) for file in places if file.suffix.lower() in (".yaml", ".yml")}
    maps = [found for file in places if file not in described for found in _read_file(file, resolution)]
    if not maps:
        raise QuickstudyError(f"The folder '{path}' has no map; a map is a file that ends in {', '.join(SUFFIXES)}.")
    return maps


def _read_file(path: Path, resolution: float) -> list[OccupancyMap]:
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return [_read_map_server(path)]
    if suffix == ".map":
        return [OccupancyMap(path.stem, _read_moving_ai(path), resolution)]
    if suffix == ".npz":
        return _read_arrays(path, resolution)
    if suffix in IMAGES:
        return [OccupancyMap(path.stem, _grey(path) >= _LIGHT, resolution)]
    raise QuickstudyError(f"'{path}' is of no known form of map; a map is a file that ends in {', '.join(SUFFIXES)}.")


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


_Number = Annotated[FiniteFloat, BeforeValidator(_no_flag)]
_Share = Annotated[_Number, Field(ge=0.0, le=1.0)]


class _MapServer(BaseModel, extra="allow"):
    """What a `.yaml` of map_server says."""

    image: str = Field(min_length=1)
    resolution: _Number
    origin: list[_Number] = Field(min_length=2, max_length=3)
    negate: bool
    occupied_thresh: _Share
    free_thresh: _Share
    mode: Literal["trinary", "scale", "raw"] = "trinary"


def _read_map_server(path: Path) -> OccupancyMap:
    about = _yaml(path)
    if about.model_extra:
        console.print(
            f"'{path}': the keys {listed(list(about.model_extra))} are not used.", markup=False, soft_wrap=True
        )
    if about.free_thresh > about.occupied_thresh:
        raise QuickstudyError(
            f"'{path}': free_thresh must not be above occupied_thresh; got {about.free_thresh:g} and "
            f"{about.occupied_thresh:g}."
        )
    if about.mode == "raw" and about.negate:
        raise QuickstudyError(
            f"'{path}': negate means one thing to ROS 1 and another to ROS 2 where mode is raw: set it to 0."
        )
    grey = _grey(_image_of(path, about))
    # 'scale' differs from 'trinary' between the thresholds alone, where a cell is not free either way.
    occupied = grey if about.negate else 1.0 - grey
    if about.mode == "raw":  # a cell's number is its occupancy in per cent itself, and what is above 100 is unknown
        occupied = np.round(255 * grey) / 100
    x, y, yaw = (*about.origin, 0.0)[:3]
    return OccupancyMap(path.stem, occupied < about.free_thresh, about.resolution, (x, y), yaw)


def _yaml(path: Path) -> _MapServer:
    try:
        text = path.read_text()
        if len(text) > _YAML or any(isinstance(one, yaml.AliasToken) for one in yaml.scan(text, yaml.SafeLoader)):
            raise QuickstudyError(f"'{path}' is longer than a map_server file, or has aliases, which these have not.")
        said = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise QuickstudyError(f"'{path}' cannot be read as YAML ({one_line(error)}).") from error
    if not isinstance(said, dict):
        needed = [name for name, field in _MapServer.model_fields.items() if field.is_required()]
        raise QuickstudyError(f"'{path}' is no map_server file: it must hold the keys {', '.join(needed)}.")
    return files.checked(_MapServer, {str(key): value for key, value in said.items()}, f"'{path}'")


def _image_of(path: Path, about: _MapServer) -> Path:
    image = path.parent / about.image
    name = Path(about.image)
    if ".." in name.parts or (name.is_absolute() and path.parent.resolve() not in image.resolve().parents):
        raise QuickstudyError(f"'{path}': its image {about.image!r:.80} lies outside of the folder of the map.")
    return image


def _grey(path: Path) -> np.ndarray:
    """Brightness [row, column] of an image, 0 black to 1 white; of colours their mean, as in map_server."""
    if not path.is_file():
        raise QuickstudyError(f"There is no image '{path}'.")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _CELLS:
                raise QuickstudyError(
                    f"'{path}' has {image.width} x {image.height} cells; at most {_CELLS:.0e} are read."
                )
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise QuickstudyError(f"'{path}' has {pages} pages; a map is one picture.")
            layered = "A" in image.getbands() or "transparency" in image.info
            if layered and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                raise QuickstudyError(
                    f"'{path}' has transparent parts, whose colour nobody sees; save it without them, white where it "
                    "is free."
                )
            if not image.mode.startswith(("I", "F")):
                return np.asarray(image.convert("RGB")).mean(axis=-1) / 255.0
            # Sixteen bits, and fractions, are not what a conversion makes of them.
            whole = image.mode.startswith("I")
            grey = np.asarray(image, dtype=float) / (65535.0 if whole else 1.0)
            if not ((grey >= 0) & (grey <= 1)).all():
                found = np.asarray(image)
                raise QuickstudyError(
                    f"'{path}' has brightness from {found.min():g} to {found.max():g}; pictures of its type keep to "
                    f"0..{65535 if whole else 1}."
                )
            return grey
    except QuickstudyError:
        raise
    except Exception as error:  # damaged images make it raise anything
        raise QuickstudyError(f"'{path}' is not a readable image ({one_line(error)}).") from error


def _read_moving_ai(path: Path) -> np.ndarray:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise QuickstudyError(f"'{path}' cannot be read ({error.strerror}).") from error
    wrong = QuickstudyError(
        f"'{path}' is not a MovingAI map: it must begin with the lines 'type octile', 'height H', 'width W' and 'map', "
        "and go on with H lines of W characters."
    )
    try:
        sizes = {key: int(value) for key, value in (line.split() for line in lines[1:3])}
        height, width = sizes[b"height"], sizes[b"width"]
    except (ValueError, KeyError) as error:
        raise wrong from error
    rows = lines[4 : 4 + height]
    if lines[3:4] != [b"map"] or height < 1 or len(rows) < height or {len(row) for row in rows} != {width}:
        raise wrong
    return np.isin(np.stack([np.frombuffer(row, dtype=np.uint8) for row in rows]), list(_PASSABLE))


def _read_arrays(path: Path, resolution: float) -> list[OccupancyMap]:
    arrays = datasets.load_arrays(path)
    resolution = float(_numbers(path, arrays, "resolution", ((),), np.array(resolution)))
    x, y, yaw = (*_numbers(path, arrays, "origin", ((2,), (3,)), np.zeros(3)).tolist(), 0.0)[:3]
    names = arrays.pop("names", None)
    grids: list[tuple[str, np.ndarray]] = []
    unused = []
    for key, array in arrays.items():
        if array.ndim == 2 and array.dtype == bool:
            grids.append((key, array))
        elif array.ndim == 3 and array.dtype == bool:
            called = np.arange(len(array)) if names is None else names
            if called.shape != (len(array),):
                raise QuickstudyError(f"'{path}': names has shape {called.shape}, but '{key}' holds {len(array)} maps.")
            grids += zip(map(str, called), array, strict=True)
        elif _is_grid(array):
            grids.append((key, array == 0))
        else:
            unused.append(key)
    if not grids:
        raise QuickstudyError(
            f"'{path}' holds no map: it needs a whole-numbered array [row, column] of 0 (free), 100 (occupied) and -1 "
            "or 255 (unknown), or a boolean one [row, column] or [map, row, column] with True where it is free."
        )
    known = [name for name, _ in grids]
    if len(set(known)) < len(known):
        raise QuickstudyError(f"'{path}' has two maps named '{next(name for name in known if known.count(name) > 1)}'.")
    if unused:
        console.print(f"'{path}': {listed(unused)} are no maps and not used.", markup=False, soft_wrap=True)
    return [OccupancyMap(name, free, resolution, (x, y), yaw) for name, free in grids]


def _is_grid(array: np.ndarray) -> bool:
    """Whether it is a grid of nav_msgs, and not a list of points."""
    whole = array.ndim == 2 and array.dtype.kind in "iu" and min(array.shape) > 2
    return whole and bool(np.isin(array, (-1, 255, *range(101))).all())


def _numbers(
    path: Path, arrays: dict[str, np.ndarray], key: str, shapes: tuple[tuple[int, ...], ...], otherwise: np.ndarray
) -> np.ndarray:
    """What an archive says under a key, which is taken out of it."""
    found = arrays.pop(key, otherwise)
    if found.shape not in shapes or found.dtype.kind not in "iuf":
        wanted = "one number" if shapes == ((),) else "x, y and perhaps yaw"
        raise QuickstudyError(f"'{path}': {key} must be {wanted}; got shape {found.shape} of {found.dtype}.")
    return found
