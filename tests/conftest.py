import pytest


@pytest.fixture(autouse=True)
def bank(monkeypatch, tmp_path_factory):
    """Gives every test a bank of its own instead of the user's, and returns its folder."""
    folder = tmp_path_factory.mktemp("bank")
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", str(folder))
    return folder
