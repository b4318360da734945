"""The Kaggle notebook, executed on dummy_data."""

import asyncio
import os
import sys

import nbclient
import nbformat
import pytest

from tests.support.competition import DUMMY_DATA, REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "kaggle_build.ipynb"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Kaggle's notebooks run on Linux")
def test_kaggle_notebook(tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    notebook.cells = [cell for cell in notebook.cells if "not-run" not in cell.metadata.get("tags", ())]
    paths = {"/kaggle/input/landmark-retrieval-2020": DUMMY_DATA, "/kaggle/working/tfds": tmp_path / "tfds"}
    for path, ours in paths.items():
        assert any(f'"{path}"' in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(path, str(ours))
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    asyncio.run(client.async_execute())
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert "Built landmark_triplets/128px" in text
    assert "20 triplets" in text
    assert any("image/png" in output.get("data", {}) for output in outputs)  # show_triplets
    assert (tmp_path / "tfds" / "landmark_triplets" / "128px").is_dir()
