"""Decoded images kept in memory, so that each is read and decoded once a training."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ..errors import UserError
from ..io.store import Store

Sizes = Mapping[str, tuple[int, int]]
"""File name → (H, W)."""

_SHARED_MEMORY = Path("/dev/shm")


class MemoryStore:
    """A store that decodes every image once, into memory that all loading processes share.

    Args:
        store: where the images come from.
        sizes: the images' sizes, as the annotations say; an image of another size is not kept.

    Raises:
        UserError: there is not enough shared memory.
    """

    def __init__(self, store: Store, sizes: Sizes) -> None:
        self.store = store
        (self._starts,), total = offsets([sizes])
        self._sizes = dict(sizes)
        self._numbers = {name: number for number, name in enumerate(sizes)}
        if _SHARED_MEMORY.is_dir() and total > (free := shutil.disk_usage(_SHARED_MEMORY).free):
            raise UserError(
                f"DATASET.CACHE ram needs {total / 2**30:.1f} GiB of shared memory, but "
                f"{_SHARED_MEMORY} has {free / 2**30:.1f} GiB free"
            )
        self._pixels = _shared_tensor(total)
        self._filled = _shared_tensor(len(sizes))

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self.store.holds(name)

    def image(self, name: str, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB; not to be written to. ``size`` is known here."""
        number = self._numbers[name]
        height, width = self._sizes[name]
        start = self._starts[name]
        kept = self._pixels[start : start + 3 * height * width].view(height, width, 3).numpy()
        if self._filled[number]:
            return kept
        image = self.store.image(name, (height, width))
        if image.shape == kept.shape:
            kept[...] = image
            self._filled[number] = 1  # only now: another process may be reading
        return image


def _shared_tensor(count: int) -> torch.Tensor:
    shared: torch.Tensor = torch.zeros(count, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
    return shared


class SizeStore:
    """A store that knows only sizes: for loading processes while the device holds the pixels."""

    def __init__(self, store: Store, sizes: Sizes) -> None:
        self.store = store
        self._sizes = dict(sizes)

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self.store.holds(name)

    def image(self, name: str, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        """(H, W, 3) zeros that take no memory."""
        return np.broadcast_to(np.uint8(0), (*self._sizes[name], 3))


def offsets(sets: Sequence[Sizes]) -> tuple[list[dict[str, int]], int]:
    """For each set the first byte of its images when all sets stand one after another, and the
    bytes of all."""
    starts: list[dict[str, int]] = []
    total = 0
    for sizes in sets:
        starts.append({})
        for name, (height, width) in sizes.items():
            starts[-1][name] = total
            total += 3 * height * width
    return starts, total


def load_all(
    sets: Sequence[tuple[Store, Sizes]], device: torch.device, threads: int
) -> torch.Tensor:
    """Every image's bytes on the device, laid out as :func:`offsets` says.

    Raises:
        UserError: an image cannot be read or has another size, or the device is too small.
    """
    starts, total = offsets([sizes for _, sizes in sets])
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if total > 0.9 * free:
            raise UserError(
                f"DATASET.CACHE device needs {total / 2**30:.1f} GiB, but {device} has "
                f"{free / 2**30:.1f} GiB free"
            )
    pixels = torch.empty(total, dtype=torch.uint8, device=device)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for (store, sizes), of in zip(sets, starts, strict=True):
            images = pool.map(store.image, sizes, sizes.values())
            for name, image in zip(
                sizes, tqdm(images, "decode", len(sizes), mininterval=2.0), strict=True
            ):
                if image.shape[:2] != sizes[name]:
                    raise UserError(
                        f"image '{store.path / name}' has {image.shape[1]}x{image.shape[0]} "
                        f"pixels, but its annotation says {sizes[name][1]}x{sizes[name][0]}"
                    )
                flat = torch.from_numpy(image).view(-1)
                pixels[of[name] : of[name] + len(flat)].copy_(flat)
    return pixels
