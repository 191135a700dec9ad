"""Short cuts of decoding find what a scan of the whole map finds."""

import cv2
import numpy as np
import pytest

from higherhrnet.methods.bottom_up.refinement import Search, resize_bilinear
from higherhrnet.methods.heatmaps import host_peaks


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
    large = resize_bilinear(tags[:, 0], shape)
    for joint in range(2):
        found = search.best(joint, means)
        for mean, cell in zip(means, found, strict=True):
            difference = large - mean[:, None, None]
            distance = np.sqrt(np.einsum("tyx,tyx->yx", difference, difference))
            assert cell == (heatmaps[joint] - np.round(distance)).argmax()


@pytest.mark.parametrize("threshold", [-1.0, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 3), (25, 40)])
def test_peaks_are_those_of_a_max_pool(shape, ties, threshold):
    heat = np.random.default_rng((*shape, ties)).random(shape).astype(np.float32)
    if ties:
        heat = np.round(heat, 1)
    square = np.ones((5, 5), np.uint8)
    highest = cv2.dilate(heat, square, borderType=cv2.BORDER_CONSTANT, borderValue=-np.inf)
    flat = np.flatnonzero((heat == highest) & (heat > threshold))
    ordered = flat[np.argsort(-heat.ravel()[flat], kind="stable")]
    indices, score, dropped = host_peaks(heat, threshold, 4)
    np.testing.assert_array_equal(indices[:, 1] * shape[1] + indices[:, 0], ordered[:4])
    np.testing.assert_array_equal(score, heat.ravel()[ordered[:4]])
    assert dropped == max(len(ordered) - 4, 0)
