"""Marker rules: data tests skip without the shared folder, GPU tests without a GPU."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # tests side by side: one thread each, and one for theirs
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from .shared import SHARED, needs_shared

if SHARED.is_dir():
    os.environ.setdefault("HIGHERHRNET_SHARED", str(SHARED))


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("data"):
            item.add_marker(needs_shared)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
