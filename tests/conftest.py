import pathlib
import sys

import pytest

# For the programs in benchmarks/. At the end, so that the package itself is the installed one, if it is installed.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))


@pytest.fixture(autouse=True)
def bank(monkeypatch, tmp_path_factory):
    """Gives every test a bank of its own instead of the user's, and returns its folder."""
    folder = tmp_path_factory.mktemp("bank")
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", str(folder))
    return folder
