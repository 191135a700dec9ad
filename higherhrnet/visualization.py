"""Visualization: maps laid over an image, contact sheets, and files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .drawing import Image, write
from .errors import UserError
from .io.atomic import atomic_write
from .poses import Poses
from .skeleton import Skeleton

_TILE = 240
"""Longer side of an image on a make_sheet, pixels."""


def draw_heatmap(
    image: Image,
    values: npt.NDArray[np.floating],
    low: float | None = None,
    high: float | None = None,
) -> Image:
    """A map (h, w) as colors over the darkened image.

    Args:
        low, high: values of the first and last color; the map's own extremes by default.
    """
    height, width = image.shape[:2]
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    scaled = np.clip((values - low) / (high - low if high > low else 1.0), 0, 1)
    gray = cv2.resize((255 * scaled).astype(np.uint8), (width, height))
    colored = cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.asarray(cv2.addWeighted(image, 0.4, np.ascontiguousarray(colored), 0.6, 0), np.uint8)


def draw_maps(
    image: Image,
    heatmaps: npt.NDArray[np.floating],
    tags: npt.NDArray[np.floating] | None,
    skeleton: Skeleton,
) -> Image:
    """Heatmaps and tags on one sheet: the image, the highest of all joints' heatmaps, each
    joint's heatmap (0 to 1) and each joint's tags (all on one scale), if there are any.

    Args:
        image: (H, W, 3) uint8 RGB.
        heatmaps: (K, h, w).
        tags: (K or 1, h', w'), or None.
    """
    tiles = [
        _add_title(image, "image"),
        _add_title(draw_heatmap(image, heatmaps.max(0), 0, 1), "all joints"),
    ]
    tiles += [
        _add_title(draw_heatmap(image, values, 0, 1), joint)
        for joint, values in zip(skeleton.joints, heatmaps, strict=True)
    ]
    if tags is not None:
        low, high = np.percentile(tags, [1, 99])
        names = skeleton.joints if len(tags) > 1 else ("all joints",)
        tiles += [
            _add_title(draw_heatmap(image, values, float(low), float(high)), f"tag: {joint}")
            for joint, values in zip(names, tags, strict=True)
        ]
    return make_sheet(tiles, columns=6)


def contact_sheet(
    samples: Sequence[tuple[Image, Poses, npt.NDArray[np.uint8]]],
    skeleton: Skeleton,
    columns: int = 5,
) -> Image:
    """Annotated images side by side: joints, the boxes around them, and what is ignored striped.

    Args:
        samples: image (H, W, 3), its people, and (H, W) 1 where the loss counts.
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
        tiles.append(_shrink(drawn, 2 * _TILE))
    return make_sheet(tiles, columns=min(columns, len(tiles)))


def make_sheet(tiles: Sequence[Image], columns: int) -> Image:
    """Images in rows as high as the highest of each."""
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


def add_caption(image: Image, text: str) -> Image:
    """The image with a small line of text below it."""
    strip = np.full((24, image.shape[1], 3), 32, np.uint8)
    cv2.putText(
        strip, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (170, 170, 170), 1, cv2.LINE_AA
    )
    return np.concatenate([image, strip])


def _add_title(image: Image, name: str) -> Image:
    tile = _shrink(image, _TILE)
    write(tile, name, 0, 0)
    return tile


def _shrink(image: Image, longer: int) -> Image:
    """With its longer side this long; the shorter one at least a pixel."""
    factor = longer / max(image.shape[:2])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def save_image(path: Path, image: Image) -> None:
    """Write an image in the format of its suffix, whole or not at all.

    Raises:
        UserError: it is too large for the format.
        OSError: the file cannot be written.
    """
    done, encoded = cv2.imencode(path.suffix, image[..., ::-1])
    if not done:
        height, width = image.shape[:2]
        raise UserError(f"{width}x{height} pixels are too many for '{path}'")
    with atomic_write(path) as partial:
        partial.write_bytes(encoded.tobytes())


@contextmanager
def ignored_backend() -> Iterator[None]:
    """Around the first import of matplotlib: plots go into files, whatever ``$MPLBACKEND`` says,
    and a name that matplotlib does not know would end the import."""
    former = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if former is not None:
            os.environ["MPLBACKEND"] = former
