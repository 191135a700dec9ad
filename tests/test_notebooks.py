"""The notebooks run from top to bottom, on the drawn set and made short."""

import os
import sys
from pathlib import Path

import pytest

from .shared import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow  # make test-notebooks
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(file, tmp_path, monkeypatch):
    folder = str(Path(sys.executable).parent)
    for name, value in (
        ("NOTEBOOK_EPOCHS", "1"), ("NOTEBOOK_IMAGES", "8"), ("OMP_NUM_THREADS", "1"),
        ("PATH", folder + os.pathsep + os.environ["PATH"]), ("PYTHONPATH", str(ROOT)),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HIGHERHRNET_SHARED", raising=False)
    book = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(book, timeout=500, resources=resources).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", ())]
    assert not [o for o in outputs if o.output_type == "error"]
    told = "".join(o.get("text", "") for o in outputs)
    assert "higherhrnet: " not in "".join(line for line in told.splitlines() if "ALARM" not in line)
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3


def test_notebooks_are_there_with_outputs():
    """What a reader on the web sees: pictures, and no errors."""
    assert {file.stem for file in NOTEBOOKS} == {"predict", "finetune", "compare"}
    for file in NOTEBOOKS:
        book = nbformat.read(file, as_version=4)
        outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
        assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3, file
        assert not [o for o in outputs if o.output_type == "error"], file
        assert str(ROOT) not in file.read_text()
        assert file.stat().st_size < 2_000_000
