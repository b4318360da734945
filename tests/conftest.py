import os
import pathlib
import sys
import tempfile

import pytest

# For the programs in benchmarks/. At the end, so that the package itself is the installed one, if it is installed.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))


@pytest.fixture(autouse=True)
def bank(monkeypatch, tmp_path_factory):
    """Gives every test a bank of its own instead of the user's, and returns its folder."""
    folder = tmp_path_factory.mktemp("bank")
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", str(folder))
    return folder


@pytest.fixture
def other_user(tmp_path):
    """Returns a function that makes this process one of another user, until the test ends."""
    if not hasattr(os, "setresuid") or os.geteuid() != 0:
        pytest.skip("only root may become another user")
    for folder in (tmp_path, *tmp_path.parents):
        if folder == pathlib.Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    yield lambda: os.setresuid(65534, 65534, 0)
    os.setresuid(0, 0, 0)


@pytest.fixture
def no_home(monkeypatch):
    """Takes the home folder away, as from ``docker run --user 12345``."""
    pwd = pytest.importorskip("pwd")

    def not_found(user):
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(pwd, name, not_found)
