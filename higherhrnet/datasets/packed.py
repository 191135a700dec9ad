"""Many small objects in one piece of memory, so that forked loading processes share it.

Reading a Python object changes its reference count, and with it the page it lies on: every process
would come to own a copy of all annotations. Bytes in one array stay shared.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")


class PackedRecords(Generic[Item]):
    """A sequence that makes each item anew when it is asked for.

    Args:
        items: anything that pickles; taken one after another.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        pieces = [pickle.dumps(item, pickle.HIGHEST_PROTOCOL) for item in items]
        self._ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = self._ends[index - 1] if index else 0
        item: Item = pickle.loads(self._bytes[start : self._ends[index]].data)
        return item

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return int(self._bytes.nbytes + self._ends.nbytes)
