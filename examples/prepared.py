"""Finds prepared datasets, and says how to build what is not there. Both training examples use it.

The datasets are opened from their folders, so a machine that only trains needs no files of the competition.
"""

from __future__ import annotations

from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkImages, LandmarkTriplets, read_image_index

VALIDATION = "validation"

_BUILDERS = {"landmark_images": LandmarkImages, "landmark_triplets": LandmarkTriplets}


class NotPreparedError(Exception):
    """A dataset is not there, or not as the example needs it; the message gives the command that builds it."""


def open_images(config: str, data_dir: str | None) -> Any:
    """Returns the builder of a prepared `landmark_images` with random access and held-out landmarks.

    Raises:
      NotPreparedError: if it is not there, or prepared otherwise.
    """
    builder = _open("landmark_images", config, data_dir, "array_record")
    if VALIDATION not in builder.info.splits:
        raise NotPreparedError(
            f"{builder.info.full_name} in {builder.data_dir} holds no landmarks for evaluation: its splits are"
            f" {', '.join(builder.info.splits)}. Use a config that holds some out, such as 64px_all_holdout10:\n\n  "
            + build_command("landmark_images", "64px_all_holdout10", data_dir, "array_record")
        )
    if builder.info.file_format.value != "array_record":
        raise NotPreparedError(
            f"{builder.info.full_name} in {builder.data_dir} is prepared as {builder.info.file_format.value}, which has"
            " no random access. Build it again:\n\n  "
            + build_command("landmark_images", config, data_dir, "array_record")
            + " --overwrite"
        )
    return builder


def open_triplets(config: str, data_dir: str | None, images: Any) -> Any:
    """Returns the builder of a prepared `landmark_triplets` that goes with the images it is evaluated on.

    Raises:
      NotPreparedError: if it is not there, of another size, or made of landmarks that the images hold out.
    """
    builder = _open("landmark_triplets", config, data_dir, None)
    shape, image_shape = builder.info.features["anchor_img"].shape, images.info.features["image"].shape
    if shape != image_shape:
        raise NotPreparedError(
            f"{builder.info.full_name} holds images of shape {shape}, and {images.info.full_name} of {image_shape}."
            " Name configs of one resolution: --triplets_config, --images_config."
        )
    # What a smaller share holds out is part of what a larger one does, so that most datasets need no second look.
    if _validation_percent(builder) < _validation_percent(images):
        held_out = np.unique(read_image_index(images.data_dir, VALIDATION).landmark_ids)
        trained_on = np.intersect1d(_read_landmarks(builder), held_out)
        if len(trained_on):
            raise NotPreparedError(
                f"{len(trained_on):,} of the {len(held_out):,} landmarks that {images.info.full_name} holds out for"
                f" evaluation are in the training triplets of {builder.info.full_name}. Use a config with the same"
                " validation_percent, or a triplets_file without them."
            )
    return builder


def build_command(dataset: str, config: str, data_dir: str | None, file_format: str | None) -> str:
    """Returns the command that builds a config."""
    named = config in {each.name for each in _BUILDERS[dataset].BUILDER_CONFIGS}
    command = f"tfds build {dataset}/{config}" if named else f"tfds build {dataset}"
    command += " --imports landmark_triplets_tfds --manual_dir <folder with the competition's files>"
    if data_dir:
        command += f" --data_dir {data_dir}"
    if file_format:
        command += f" --file_format {file_format}"
    if not named:
        command += f''' --config '{{"name": "{config}", <its fields>}}\''''
    return command


def _open(dataset: str, config: str, data_dir: str | None, file_format: str | None) -> Any:
    root = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    folder = root / dataset / config
    versions = [path for path in folder.iterdir() if tfds.core.Version.is_valid(path.name)] if folder.is_dir() else []
    versions = [path for path in versions if (path / "dataset_info.json").exists()]
    if not versions:
        raise NotPreparedError(
            f"{dataset}/{config} is not prepared: there is no {folder}/<version>. Build it:\n\n  "
            + build_command(dataset, config, data_dir, file_format)
        )
    return tfds.builder_from_directory(max(versions, key=lambda path: tfds.core.Version(path.name)))


def _read_landmarks(builder: Any) -> npt.NDArray[np.int64]:
    """Returns the distinct landmarks of all training triplets; reads the records, but decodes no image."""
    names = ("landmark_id", "negative_landmark_id")
    decoders = tfds.decode.PartialDecoding(dict.fromkeys(names, True))
    batches = builder.as_dataset(split="train", decoders=decoders, batch_size=1024)
    return np.unique(np.concatenate([batch[name] for batch in tfds.as_numpy(batches) for name in names]))


def _validation_percent(builder: Any) -> float:
    fields = (builder.info.metadata or {}).get("config", {})
    return float(fields.get("validation_percent", 0))
