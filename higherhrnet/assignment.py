"""The linear assignment problem, where SciPy is not installed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]


def linear_sum_assignment(cost: Matrix) -> tuple[Indices, Indices]:
    """Rows and columns of the pairs whose costs (M, N) sum to the least; min(M, N) of them.

    By SciPy's function of that name if it is installed; both give an optimum.
    """
    try:
        from scipy.optimize import linear_sum_assignment as solve
    except ImportError:
        solve = shortest_augmenting_paths
    rows, columns = solve(cost)
    return rows, columns


def shortest_augmenting_paths(cost: Matrix) -> tuple[Indices, Indices]:
    """See :func:`linear_sum_assignment`: row after row by Dijkstra's shortest augmenting path
    (Jonker and Volgenant 1987), O(n³)."""
    cost = np.asarray(cost, np.float64)
    if cost.shape[0] > cost.shape[1]:
        columns, rows = shortest_augmenting_paths(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    count, width = cost.shape
    row_price, column_price = np.zeros(count), np.zeros(width)
    row_of = np.full(width, -1)
    for first in range(count):
        shortest = np.full(width, np.inf)
        reached_from = np.full(width, -1)
        done = np.zeros(width, bool)
        row, length, passed = first, 0.0, [first]
        while True:
            lengths = length + cost[row] - row_price[row] - column_price
            closer = ~done & (lengths < shortest)
            shortest[closer], reached_from[closer] = lengths[closer], row
            column = int(np.where(done, np.inf, shortest).argmin())
            length, done[column] = shortest[column], True
            if row_of[column] < 0:
                break
            row = int(row_of[column])
            passed.append(row)
        row_price[first] += length
        used = done.copy()
        used[column] = False
        row_price[row_of[used]] += length - shortest[used]
        column_price[used] -= length - shortest[used]
        while True:  # turn the path around
            row = int(reached_from[column])
            before = np.flatnonzero(row_of == row)
            row_of[column] = row
            if row == first:
                break
            column = int(before[0])
    columns = np.flatnonzero(row_of >= 0)
    order = np.argsort(row_of[columns])
    return row_of[columns][order], columns[order]
