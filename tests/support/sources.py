"""The repository's files, to build a wheel from."""

import os
import pathlib
import shutil


def copy_sources(repository: str | os.PathLike[str], folder: pathlib.Path) -> None:
    """Copies them into a new folder: building leaves files behind, and what earlier ones left would be taken along."""
    ignored = shutil.ignore_patterns(".git", "*.egg-info", ".*cache", "__pycache__")
    shutil.copytree(repository, folder, ignore=ignored)
    shutil.rmtree(folder / "build", ignore_errors=True)  # but not the room of that name
