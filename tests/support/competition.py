"""Competitions to build from, and builds of them, for the tests."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkImages, LandmarkImagesConfig, LandmarkTriplets, LandmarkTripletsConfig
from landmark_triplets_tfds.competition.tables import format_image_id, read_landmark_table

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DUMMY_DATA = REPOSITORY / "dummy_data"


class Competition:
    """A copy of dummy_data/, or of another folder, whose files a test may change."""

    def __init__(self, folder: pathlib.Path, original: pathlib.Path = DUMMY_DATA):
        self.folder = folder
        shutil.copytree(original, folder)

    @property
    def table(self):
        return read_landmark_table(self.folder / "train.csv")

    def ids(self) -> list[str]:
        return [format_image_id(image_id) for image_id in self.table.image_ids]

    def anchor_ids(self) -> list[str]:
        """The 43 ids that each `_all` build needs; of the two landmarks with one image, seed 0 draws one."""
        table = self.table
        _, block, num_images = np.unique(table.landmark_ids, return_inverse=True, return_counts=True)
        return [format_image_id(i) for i in table.image_ids[num_images[block] > 1]]

    def landmark_of(self, image_id: str) -> int:
        table = self.table
        return int(table.landmark_ids[table.image_ids == int(image_id, 16)][0])

    def ids_of_landmark(self, landmark_id: int) -> list[str]:
        table = self.table
        return [format_image_id(i) for i in table.image_ids[table.landmark_ids == landmark_id]]

    def path(self, image_id: str, folder: str = "train") -> pathlib.Path:
        return self.folder / folder / image_id[0] / image_id[1] / image_id[2] / f"{image_id}.jpg"


def make_builder(data_dir, config="128px", builder_class=LandmarkTriplets, **kwargs):
    return builder_class(data_dir=data_dir, config=config, **kwargs)


def build(
    data_dir,
    config="128px",
    manual_dir=DUMMY_DATA,
    file_format=None,
    builder_class=LandmarkTriplets,
    **download_config,
):
    """Builds in this process and returns the builder."""
    builder = make_builder(data_dir, config, builder_class, file_format=file_format)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, **download_config), file_format=file_format
    )
    return builder


def read_examples(builder, split="train") -> dict[str, dict]:
    """Returns the examples by anchor id and order of reading, with the images as stored bytes."""
    skip = {name: tfds.decode.SkipDecoding() for name in ("anchor_img", "positive_img", "negative_img")}
    examples = [
        {name: value.item() if hasattr(value, "item") else value for name, value in example.items()}
        for example in tfds.as_numpy(builder.as_dataset(split=split, decoders=skip))
    ]
    return sorted(examples, key=lambda e: (e["anchor_id"], e["positive_id"], e["negative_id"]))


def build_images(data_dir, config="64px_all", manual_dir=DUMMY_DATA, **kwargs):
    """Builds single images."""
    return build(data_dir, config, manual_dir, builder_class=LandmarkImages, **kwargs)


def read_images(builder, split="train") -> list[dict]:
    """Returns the examples of single images in record order, with the images as stored bytes."""
    ds = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return [
        {"image": e["image"], "image_id": e["image_id"].decode(), "landmark_id": int(e["landmark_id"])}
        for e in tfds.as_numpy(ds)
    ]


def shard_hashes(builder) -> dict[str, str]:
    """Returns the sha256 of every shard, by file name."""
    shards = sorted(path for path in pathlib.Path(builder.data_dir).iterdir() if "-of-" in path.name)
    assert shards
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}


def run(*command, environment=None, cwd=None, check=True) -> subprocess.CompletedProcess:
    """Runs a command in a process of its own, with this process's Python first on the path."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    result = subprocess.run(
        [str(part) for part in command],
        env=os.environ | {"PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"} | (environment or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    if check and result.returncode:
        raise AssertionError(f"{command} failed with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result


@contextlib.contextmanager
def mounted_tmpfs(folder: pathlib.Path, size: str):
    """Mounts a small file system there; skips the test where that is not allowed."""
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size={size} tmpfs '{folder}' 2>/dev/null"):
        pytest.skip("mounting a small file system needs Linux and root")
    try:
        yield folder
    finally:
        os.system(f"umount --lazy '{folder}'")


def custom_config(name="custom", **fields) -> LandmarkTripletsConfig:
    return LandmarkTripletsConfig(name=name, **fields)


def images_config(name="custom", **fields) -> LandmarkImagesConfig:
    return LandmarkImagesConfig(name=name, **fields)
