"""Makes the submission of the 2020 competition out of a trained network: one image in, its global descriptor out.

    python examples/export_submission.py --network runs/embedding.keras \
        --dataset DATA/landmark_images/128px_all/1.0.0 --out submission.zip

The competition wants a TensorFlow SavedModel whose signature takes one uint8 image [height, width, 3] of any size,
``input_image``, and gives one vector, ``global_descriptor``. What a build does to a photograph is done in the model:
resize by the method of the dataset's config, and the JPEG coding of its pictures, so that a descriptor is the embedding
of the stored picture. With ``resize_method="area"`` that is nearly so: a build averages while it decodes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import shutil
import sys
import tempfile
from typing import Any

import keras
import tensorflow as tf
import tensorflow_datasets as tfds


class Submission(tf.Module):
    """A network, and what a build does to a photograph before it."""

    def __init__(self, network: Any, config: dict[str, Any]):
        """Takes a network from uint8 [n, resolution, resolution, 3] to vectors, and the fields of the config."""
        super().__init__()
        self._network = network
        self._size = (config["resolution"], config["resolution"])
        self._method, self._quality = config["resize_method"], config["jpeg_quality"]
        image = tf.TensorSpec([None, None, 3], tf.uint8, name="input_image")
        self.describe = tf.function(self._describe, input_signature=[image])

    def _describe(self, input_image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the descriptor of an image, float32[dim], of length 1."""
        resized = tf.image.resize(input_image, self._size, method=self._method)
        if self._method != "nearest":
            resized = tf.cast(tf.round(resized), tf.uint8)
        stored = tf.io.decode_jpeg(tf.io.encode_jpeg(resized, quality=self._quality, optimize_size=True), channels=3)
        descriptor = tf.cast(self._network(stored[tf.newaxis], training=False)[0], tf.float32)
        return {"global_descriptor": tf.math.l2_normalize(descriptor)}


def export(network_path: Path, dataset: Path, out: Path) -> None:
    """Writes the zip.

    Raises:
      ValueError: if the network and the dataset do not fit each other, or the dataset's ``fit`` is not 'squash'.
    """
    config = tfds.builder_from_directory(dataset).info.metadata["config"]
    network = keras.models.load_model(network_path, compile=False)
    side = config["resolution"]
    if tuple(network.input_shape[1:]) != (side, side, 3):
        raise ValueError(f"{network_path} takes images of {network.input_shape[1:]}, and {dataset} has {side} px.")
    if config["fit"] != "squash":
        raise ValueError(f"{dataset} has fit={config['fit']!r}; only 'squash' is exported.")
    submission = Submission(network, config)
    with tempfile.TemporaryDirectory() as folder:
        signatures = {"serving_default": submission.describe}
        tf.saved_model.save(submission, folder, signatures=signatures)
        out.parent.mkdir(parents=True, exist_ok=True)
        packed = shutil.make_archive(str(Path(folder).parent / f"{Path(folder).name}.packed"), "zip", folder)
    shutil.move(packed, out)
    print(f"Written to {out}: {out.stat().st_size / 1e6:.1f} MB.")


def main(arguments: list[str] | None = None) -> None:
    """Exports what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", type=Path, required=True, help="a Keras file, as train_embedding.py writes it")
    parser.add_argument("--dataset", type=Path, required=True, help="folder of the version that it was trained on")
    parser.add_argument("--out", type=Path, default=Path("submission.zip"), help="(default: %(default)s)")
    args = parser.parse_args(arguments)
    try:
        export(args.network, args.dataset, args.out)
    except (ValueError, OSError) as error:
        sys.exit(f"export_submission.py: {error}")


if __name__ == "__main__":
    main()
