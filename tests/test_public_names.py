"""The public names: each can be imported and is typed, and importing the package stays fast."""

import subprocess
import sys

import pytest

import landmark_triplets_tfds
from tests.support.competition import REPOSITORY

# What the builders are and need themselves; all else that has public names is imported late.
NEEDED = {
    f"landmark_triplets_tfds.{name}"
    for name in ("errors", "landmark_images", "landmark_triplets", "training.records", "triplets.draws")
}


def python(program):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", landmark_triplets_tfds.__all__)
def test_every_name_can_be_imported(name):
    value = getattr(landmark_triplets_tfds, name)
    assert value.__name__ == name
    assert value.__doc__
    assert getattr(landmark_triplets_tfds, name) is value
    assert name in dir(landmark_triplets_tfds)


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'landmark_triplets_tfds' has no attribute 'Triplets'"):
        landmark_triplets_tfds.Triplets  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Triplets'"):
        from landmark_triplets_tfds import Triplets  # noqa: F401


def test_all_names_at_once():
    program = "from landmark_triplets_tfds import *; print(*sorted(set(dir())))"
    assert set(landmark_triplets_tfds.__all__) <= set(python(program).split())


def test_the_import_is_light():
    program = "import sys, landmark_triplets_tfds; dir(landmark_triplets_tfds); print(*sys.modules)"
    imported = set(python(program).split())
    late = {getattr(landmark_triplets_tfds, name).__module__ for name in landmark_triplets_tfds.__all__} - NEEDED
    assert not {"tensorflow", "pandas", "apache_beam", "faiss", *late} & imported
