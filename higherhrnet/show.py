"""Pictures for people: maps laid over a picture, sheets of several, and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .drawing import Image, write
from .errors import UserError
from .files import whole
from .poses import Poses
from .skeleton import Skeleton

_TILE = 240
"""Longer side of a picture on a sheet, pixels."""


def heat(
    image: Image,
    values: npt.NDArray[np.floating],
    low: float | None = None,
    high: float | None = None,
) -> Image:
    """A map (h, w) as colours over the darkened picture.

    Args:
        low, high: values of the first and last colour; the map's own extremes by default.
    """
    height, width = image.shape[:2]
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    scaled = np.clip((values - low) / (high - low if high > low else 1.0), 0, 1)
    grey = cv2.resize((255 * scaled).astype(np.uint8), (width, height))
    coloured = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.asarray(cv2.addWeighted(image, 0.4, np.ascontiguousarray(coloured), 0.6, 0), np.uint8)


def fields(
    image: Image,
    heatmaps: npt.NDArray[np.floating],
    tags: npt.NDArray[np.floating] | None,
    skeleton: Skeleton,
) -> Image:
    """What the network saw, on one sheet: the picture, the hottest joint of every place, each
    joint's heatmap (0 to 1) and each joint's tags (all on one scale), if there are any.

    Args:
        image: (H, W, 3) uint8 RGB.
        heatmaps: (K, h, w).
        tags: (K or 1, h', w'), or None.
    """
    tiles = [_named(image, "picture"), _named(heat(image, heatmaps.max(0), 0, 1), "all joints")]
    tiles += [
        _named(heat(image, values, 0, 1), joint)
        for joint, values in zip(skeleton.joints, heatmaps, strict=True)
    ]
    if tags is not None:
        low, high = np.percentile(tags, [1, 99])
        names = skeleton.joints if len(tags) > 1 else ("all joints",)
        tiles += [
            _named(heat(image, values, float(low), float(high)), f"tag: {joint}")
            for joint, values in zip(names, tags, strict=True)
        ]
    return sheet(tiles, columns=6)


def contact_sheet(
    samples: Sequence[tuple[Image, Poses, npt.NDArray[np.uint8]]],
    skeleton: Skeleton,
    columns: int = 5,
) -> Image:
    """Annotated pictures side by side: joints, the boxes around them, and what is ignored striped.

    Args:
        samples: picture (H, W, 3), its people, and (H, W) 1 where the loss counts.
    """
    tiles = []
    for image, poses, valid in samples:
        drawn = poses.draw(image, skeleton)
        for x, y, w, h in poses.boxes:
            corners = (round(x), round(y)), (round(x + w), round(y + h))
            cv2.rectangle(drawn, *corners, (255, 255, 255), max(1, max(image.shape) // 400))
        y_of, x_of = np.indices(valid.shape)
        stripes = (valid == 0) & ((y_of + x_of) // max(4, max(image.shape) // 60) % 2 == 0)
        drawn[stripes] = (255, 0, 200)
        tiles.append(_shrunk(drawn, 2 * _TILE))
    return sheet(tiles, columns=min(columns, len(tiles)))


def sheet(tiles: Sequence[Image], columns: int) -> Image:
    """Pictures in rows as high as the highest of each."""
    width = max(tile.shape[1] for tile in tiles) + 4
    rows = []
    for first in range(0, len(tiles), columns):
        row = tiles[first : first + columns]
        height = max(tile.shape[0] for tile in row) + 4
        canvas = np.full((height, columns * width, 3), 32, np.uint8)
        for number, tile in enumerate(row):
            x = number * width + 2
            canvas[2 : 2 + tile.shape[0], x : x + tile.shape[1]] = tile
        rows.append(canvas)
    return np.concatenate(rows)


def signed(image: Image, text: str) -> Image:
    """The picture with a small line of text below it."""
    strip = np.full((24, image.shape[1], 3), 32, np.uint8)
    cv2.putText(
        strip, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (170, 170, 170), 1, cv2.LINE_AA
    )
    return np.concatenate([image, strip])


def _named(image: Image, name: str) -> Image:
    tile = _shrunk(image, _TILE)
    write(tile, name, 0, 0)
    return tile


def _shrunk(image: Image, longer: int) -> Image:
    """With its longer side this long; the shorter one at least a pixel."""
    factor = longer / max(image.shape[:2])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def save(path: Path, image: Image) -> None:
    """Write a picture in the format of its suffix, whole or not at all.

    Raises:
        UserError: it is too large for the format.
        OSError: the file cannot be written.
    """
    done, encoded = cv2.imencode(path.suffix, image[..., ::-1])
    if not done:
        height, width = image.shape[:2]
        raise UserError(f"{width}x{height} pixels are too many for '{path}'")
    with whole(path) as partial:
        partial.write_bytes(encoded.tobytes())
