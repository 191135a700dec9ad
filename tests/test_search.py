"""Filling a missing joint by branch and bound gives the cell that a scan of the whole map gives."""

import numpy as np
import pytest

from higherhrnet.codecs.search import Search, enlarged


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    ("shape", "source"),
    [((128, 192), (64, 96)), ((100, 75), (33, 19)), ((61, 17), (61, 17)), ((9, 200), (3, 50))],
)
def test_a_scan_finds_no_better_cell_and_no_earlier_one(shape, source, depth, ties):
    rng = np.random.default_rng((*shape, depth, ties))
    heatmaps = rng.random((2, *shape)).astype(np.float32)
    tags = rng.normal(0, 3, (depth, 1, *source)).astype(np.float32)
    if ties:  # the first of many cells that are equally good
        heatmaps, tags = np.round(heatmaps, 1), np.round(tags)
    means = rng.normal(0, 3, (300, depth)).astype(np.float32)  # more than are looked into at once
    search = Search(heatmaps, tags)
    large = enlarged(tags[:, 0], shape)
    for joint in range(2):
        found = search.best(joint, means)
        for mean, cell in zip(means, found, strict=True):
            difference = large - mean[:, None, None]
            distance = np.sqrt(np.einsum("tyx,tyx->yx", difference, difference))
            assert cell == (heatmaps[joint] - np.round(distance)).argmax()
