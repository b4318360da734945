"""Forked processes: they read, or say why they cannot."""

import os
import pathlib
import sys

import pytest

from tests.support.competition import REPOSITORY, build_images, images_config, run

pytest.importorskip("array_record")

# Prints what children read: the first before the parent has read anything, the second after it has read one record.
PROGRAM = """
import os
import sys

import tensorflow_datasets as tfds

from landmark_triplets_tfds.errors import ForkedReaderError
from landmark_triplets_tfds.training.fresh_triplets import FreshTriplets
from landmark_triplets_tfds.training.landmark_batches import LandmarkBatches

source = tfds.builder_from_directory(sys.argv[1]).as_data_source(split="train")
triplets = FreshTriplets(source)
LandmarkBatches(source, 3, 2)
for _ in range(2):
    child = os.fork()
    if not child:
        try:
            for read in (lambda: len(triplets.__getitems__(range(8))), lambda: len(source.__getitems__([5, 6]))):
                try:
                    print(read(), len(source), flush=True)
                except ForkedReaderError as error:
                    print(error, flush=True)
        finally:
            os._exit(0)
    print("child ended with", os.waitpid(child, 0)[1], flush=True)
    triplets[0]
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_read_or_say_why_they_cannot(tmp_path):
    builder = build_images(tmp_path, images_config(resolution=16, images_per_landmark=None), file_format="array_record")
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = run(sys.executable, "-c", PROGRAM, pathlib.Path(builder.data_dir), environment={"PYTHONPATH": path})
    first, second = done.stdout.split("child ended with 0\n")[:2]
    assert first == "8 45\n2 45\n"
    errors = second.splitlines()
    assert len(errors) == 2
    for error in errors:
        assert "forked from one that had read records already" in error
        assert "multiprocessing_context='forkserver'" in error
