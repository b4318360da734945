"""The Kaggle notebook, executed on dummy_data; in an image's environment, with the line that installs the package.

`.ci/versions kaggle` makes an environment of what Kaggle's image holds, without this package, and runs this file in it
with IMAGE_OF_TESTS=.ci/images/kaggle.txt. So nothing here imports the package, or what imports it.
"""

import asyncio
import importlib.metadata
import os
from pathlib import Path
import re
import sys

import nbclient
import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOK = REPOSITORY / "examples" / "kaggle_build.ipynb"
IMAGE = os.environ.get("IMAGE_OF_TESTS")
# What docs/sources.md adds to the line that installs the package, and the versions.
MORE = {"importlib-resources": "", "tensorflow-metadata": "<1.21"} if IMAGE and "colab" in IMAGE else {}


def installed() -> dict[str, str]:
    """Returns the version of every installed package, by its name as package indexes write it."""
    return {
        re.sub(r"[-_.]+", "-", package.name).lower(): package.version for package in importlib.metadata.distributions()
    }


def in_image() -> dict[str, str]:
    """Returns the version of every package that the file of the image names."""
    lines = Path(IMAGE).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Kaggle's notebooks run on Linux")
def test_kaggle_notebook(tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    paths = {
        "/kaggle/input/landmark-retrieval-2020": REPOSITORY / "dummy_data",
        "/kaggle/working/tfds": tmp_path / "tfds",
    }
    for path in paths:
        assert any(f'"{path}"' in cell.source for cell in notebook.cells)
    paths["<path or URL of this repository>"] = " ".join(
        [str(REPOSITORY), *(f"'{name}{version}'" for name, version in MORE.items())]
    )
    for cell in notebook.cells:
        for path, ours in paths.items():
            cell.source = cell.source.replace(path, str(ours))
    if IMAGE:
        assert installed() == in_image()
        # What a kernel has imported before the package is installed must go on to work.
        before = "import matplotlib.pyplot, numba, numpy, pandas, sklearn.decomposition, sklearn.neighbors"
        after = (
            "sklearn.neighbors.NearestNeighbors().fit(numpy.eye(8)); sklearn.decomposition.PCA().fit(numpy.eye(8))\n"
            "numba.njit(lambda x: x + 1)(numpy.arange(3)); pandas.DataFrame([1]); matplotlib.pyplot.plot([1])"
        )
        notebook.cells.insert(0, nbformat.v4.new_code_cell(before))
        notebook.cells.append(nbformat.v4.new_code_cell(after))
    else:
        notebook.cells = [cell for cell in notebook.cells if "not-run" not in cell.metadata.get("tags", ())]
        monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}")
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    asyncio.run(client.async_execute())
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert "Built landmark_triplets/128px" in text
    assert "20 triplets" in text
    assert "All well" in text  # verify
    assert any("image/png" in output.get("data", {}) for output in outputs)  # show_triplets
    assert (tmp_path / "tfds" / "landmark_triplets" / "128px").is_dir()
    if IMAGE:
        new = {name: version for name, version in installed().items() if in_image().get(name) != version}
        assert set(new) == {"landmark-triplets-tfds", "loky", "simplejpeg", *MORE}
