"""Trains a small network, from scratch, to embed landmarks, and measures how well it finds ones it has never seen.

    python examples/train_embedding.py --data_dir DATA

Three ways to feed it, chosen with --data:

  batches   batches of P landmarks with K images each (landmark_images), semi-hard triplets found within the batch
  fresh     triplets drawn anew in every epoch from single images (landmark_images)
  triplets  stored triplets (landmark_triplets), the same ones in every epoch

Evaluation is the same for all: the validation split of landmark_images, whose landmarks are in no training data, is
divided into queries and an index. Keras 3 on TensorFlow; one CPU or GPU, several GPUs or a TPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import importlib.util
import inspect
import json
import os
from pathlib import Path
import sys
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from held_out import HeldOut, describe, save_embeddings
import keras
from keras import layers, ops
import numpy as np
import numpy.typing as npt
from prepared import VALIDATION, NotPreparedError, open_images, open_triplets
import tensorflow as tf
import tensorflow_datasets as tfds

from landmark_triplets_tfds import (
    FreshTriplets,
    LandmarkBatches,
    LandmarkTripletsError,
    batches_as_tf_dataset,
    images_as_tf_dataset,
    read_image_index,
    triplets_as_tf_dataset,
)

FILTERS = (32, 64, 128, 128)
ROLES = ("anchor_img", "positive_img", "negative_img")

_SHUFFLE_BUFFER = 4096  # stored triplets; TFDS stores them in random order already
_IMAGES_PER_CALL = 256  # when embedding
_MANY_EPOCHS = 1 << 20  # more than anyone trains: --steps says when to stop


def make_network(
    resolution: int,
    embedding_size: int,
    filters: Sequence[int] = FILTERS,
    backbone: str | None = None,
    weights: str | None = None,
) -> keras.Model:
    """Returns a network from uint8 images [n, resolution, resolution, 3] to vectors of length 1, [n, embedding_size].

    It is made of Keras's own layers alone, so its file opens anywhere.

    Args:
      resolution: px.
      embedding_size: of the vectors, which are float32 with mixed precision too.
      filters: of the convolutions. The default has 0.25 million weights: enough to see differences between data, small
        enough for a CPU.
      backbone: of `keras.applications`, by its name there, in place of convolutions.
      weights: file of the backbone's weights, without its classifier. None: random ones.
    """
    images = keras.Input((resolution, resolution, 3), dtype="uint8")
    if backbone:
        make = getattr(keras.applications, backbone)
        preprocess = sys.modules[make.__module__].preprocess_input  # each family of networks has its own scale
        network = make(include_top=False, weights=weights, input_shape=(resolution, resolution, 3), pooling="avg")
        features = network(preprocess(layers.Rescaling(1.0)(images)))
    else:
        features = layers.Rescaling(1 / 127.5, offset=-1)(images)
        for num_filters in filters:
            features = layers.Conv2D(num_filters, 3, strides=2, padding="same", use_bias=False)(features)
            features = layers.BatchNormalization(momentum=0.9)(features)
            features = layers.ReLU()(features)
        features = layers.GlobalAveragePooling2D()(features)
    vectors = layers.Dense(embedding_size, dtype="float32")(features)
    return keras.Model(images, layers.UnitNormalization(dtype="float32")(vectors), name="embedding")


def embed_triplets(network: keras.Model) -> keras.Model:
    """Returns a model from images [n, 3, h, w, 3] to embeddings [n, 3, dim].

    All three go through the network as one batch, so that batch normalization sees them together; the triplet stays
    one example, so that strategies may divide a batch among devices.
    """
    triplets = keras.Input((len(ROLES), *network.input_shape[1:]), dtype="uint8")
    embeddings = network(ops.reshape(triplets, (-1, *network.input_shape[1:])))
    return keras.Model(triplets, ops.reshape(embeddings, (-1, len(ROLES), network.output_shape[-1])))


def triplet_loss(margin: float) -> Callable[[Any, Any], Any]:
    """Returns the loss of Schroff et al., "FaceNet", CVPR 2015, equation 1, on embeddings [n, 3, dim]: float[n]."""

    def loss(landmark_ids: Any, embeddings: Any) -> Any:
        anchor, positive, negative = (embeddings[:, i] for i in range(len(ROLES)))
        to_positive = ops.sum(ops.square(anchor - positive), axis=-1)
        to_negative = ops.sum(ops.square(anchor - negative), axis=-1)
        return ops.relu(to_positive - to_negative + margin)

    return loss


def semi_hard_loss(margin: float) -> Callable[[Any, Any], Any]:
    """Returns the triplet loss on embeddings [n, dim] with the triplets that a batch offers: float[n].

    Each pair of images of a landmark is an anchor and its positive; their negative is the nearest one that is farther
    from the anchor than the positive (semi-hard, section 3.2 of "FaceNet"), or if there is none, the farthest of all.
    An image's loss is the mean over its positives, and 0 without any.
    """

    def loss(landmark_ids: Any, embeddings: Any) -> Any:
        landmark_ids = ops.reshape(landmark_ids, (-1,))
        same = ops.equal(landmark_ids[:, None], landmark_ids[None, :])
        is_positive = ops.logical_and(same, ops.logical_not(ops.eye(ops.shape(landmark_ids)[0], dtype="bool")))
        # Squared distances of vectors of length 1.
        distances = ops.relu(2 - 2 * ops.matmul(embeddings, ops.transpose(embeddings)))
        to_positive, to_negative = distances[:, :, None], distances[:, None, :]
        is_semi_hard = ops.logical_and(ops.logical_not(same)[:, None, :], to_negative > to_positive)
        nearest = ops.min(ops.where(is_semi_hard, to_negative, np.inf), axis=-1)
        farthest = ops.max(ops.where(same, -1.0, distances), axis=-1, keepdims=True)
        negative = ops.where(ops.any(is_semi_hard, axis=-1), nearest, farthest)
        losses = ops.where(is_positive, ops.relu(distances - negative + margin), 0.0)
        return ops.sum(losses, axis=-1) / ops.maximum(1.0, ops.sum(ops.cast(is_positive, "float32"), axis=-1))

    return loss


def training_data(args: argparse.Namespace, images: Any) -> Any:
    """Returns an endless tf.data.Dataset of batches (images, landmark_id).

    The images are [n, h, w, 3] with ``--data batches``, otherwise triplets [n, 3, h, w, 3].

    Raises:
      NotPreparedError: if a dataset is not there.
    """
    if args.data == "batches":
        source = images.as_data_source(split="train")
        batches = LandmarkBatches(source, args.landmarks_per_batch, args.images_per_landmark, seed=args.seed)
        return batches_as_tf_dataset(source, batches, num_epochs=_MANY_EPOCHS)

    if args.data == "fresh":
        triplets = FreshTriplets(images.as_data_source(split="train"), seed=args.seed)
        dataset = triplets_as_tf_dataset(triplets, num_epochs=_MANY_EPOCHS)
    else:
        dataset = open_triplets(args.triplets_config, args.data_dir, images).as_dataset(
            split="train", shuffle_files=True, read_config=tfds.ReadConfig(shuffle_seed=args.seed)
        )
        dataset = dataset.shuffle(_SHUFFLE_BUFFER, seed=args.seed).repeat()

    def stack(triplet: dict[str, Any]) -> tuple[Any, Any]:
        return tf.stack([triplet[role] for role in ROLES]), triplet["landmark_id"]

    return dataset.map(stack).batch(args.batch_size, drop_remainder=True)


def embed(network: keras.Model, data_source: Any) -> npt.NDArray[np.float32]:
    """Returns the embeddings of all records, float32[n, dim], in record order."""
    dataset = images_as_tf_dataset(data_source).map(lambda example: example["image"]).batch(_IMAGES_PER_CALL)
    embeddings: npt.NDArray[np.float32] = network.predict(dataset.prefetch(2), verbose=0)
    return embeddings


class Evaluation(keras.callbacks.Callback):
    """Adds mAP@100 and recall@1 on held-out landmarks to what Keras prints and TensorBoard shows."""

    def __init__(self, network: keras.Model, held_out: HeldOut, data_source: Any):
        super().__init__()
        self._network, self._held_out, self._data_source = network, held_out, data_source

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.embeddings = embed(self._network, self._data_source)
        self.metrics = self._held_out.evaluate(self.embeddings)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in self.metrics.items()})


def make_strategy(device: str) -> tf.distribute.Strategy:
    """Returns how to distribute training.

    Args:
      device: 'one' CPU or GPU; 'mirrored': all GPUs; 'tpu'; 'auto': a TPU if there is one, else all GPUs if there are
        several, else one device.
    """
    if device == "auto":
        if tf.config.list_physical_devices("TPU") or os.environ.get("TPU_NAME"):
            device = "tpu"
        else:
            device = "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one"
    if device == "tpu":
        # "local": a TPU of this machine, as in Kaggle notebooks; TPU_NAME: one elsewhere.
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if device == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return tf.distribute.MirroredStrategy([each.name for each in tf.config.list_logical_devices(kind)])
    return tf.distribute.get_strategy()


def train(args: argparse.Namespace) -> dict[str, float]:
    """Trains, evaluates and writes all files; returns the measures on held-out landmarks.

    Raises:
      NotPreparedError: if a dataset is not there.
    """
    keras.utils.set_random_seed(args.seed)
    keras.config.set_dtype_policy(args.precision)
    images = open_images(args.images_config, args.data_dir)
    validation = images.as_data_source(split=VALIDATION)
    held_out = HeldOut(read_image_index(images.data_dir, VALIDATION))
    data = training_data(args, images)
    strategy = make_strategy(args.device)
    with strategy.scope():
        side = images.info.features["image"].shape[0]
        network = make_network(side, args.embedding_size, args.filters, args.backbone, args.backbone_weights)
        if args.data == "batches":
            # A model around it: the one that is saved knows nothing of this file's loss.
            model, loss = keras.Sequential([network]), semi_hard_loss(args.margin)
        else:
            model, loss = embed_triplets(network), triplet_loss(args.margin)
        model.compile(keras.optimizers.Adam(args.learning_rate), loss=loss)

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    dataset = f"landmark_triplets/{args.triplets_config}" if args.data == "triplets" else images.info.full_name
    print(f"Training with --data {args.data} on {dataset}.")
    print(f"{network.count_params():,} weights, {strategy.num_replicas_in_sync} device(s).")
    print(f"Evaluation on landmarks never trained on: {held_out.size}.")
    print(f"Before training: {describe(held_out.evaluate(embed(network, validation)))}")

    evaluation = Evaluation(network, held_out, validation)
    callbacks: list[keras.callbacks.Callback] = [evaluation]
    if importlib.util.find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(out / "logs", update_freq="epoch", write_graph=False))
    else:
        print("No TensorBoard logs are written: tensorboard is not installed (pip install '.[examples]').")
    num_epochs = -(-args.steps // args.evaluate_every)
    steps = -(-args.steps // num_epochs)
    data = data.prefetch(tf.data.AUTOTUNE)
    model.fit(data, epochs=num_epochs, steps_per_epoch=steps, callbacks=callbacks, verbose=args.verbose, shuffle=False)

    embeddings, metrics = evaluation.embeddings, evaluation.metrics
    print(f"After {num_epochs * steps:,} steps: {describe(metrics)}")
    network.save(out / "embedding.keras")
    held_out.draw(out / "results.png", embeddings, validation)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {out}: embedding.keras, results.png, metrics.json")
    if args.embeddings:
        save_embeddings(Path(args.embeddings), lambda split: embed(network, images.as_data_source(split=split)), images)
    return metrics


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", choices=("batches", "fresh", "triplets"), default="batches", help="(default: %(default)s)")
    add("--data_dir", metavar="DIR", help="where datasets are (default: ~/tensorflow_datasets)")
    add("--images_config", default="64px_all_holdout10", help="of landmark_images (default: %(default)s)")
    add("--triplets_config", default="64px_all_holdout10", help="of landmark_triplets (default: %(default)s)")
    add("--out", default="build/embedding", metavar="DIR", help="for all that is written (default: %(default)s)")
    add("--embeddings", metavar="DIR", help="write the embeddings of each split there, <split>.npy")
    add("--steps", type=int, default=600, help="batches to train on (default: %(default)s)")
    add("--evaluate_every", type=int, default=200, help="steps, which Keras calls an epoch (default: %(default)s)")
    add("--batch_size", type=int, default=32, help="triplets in a batch (default: %(default)s)")
    add("--landmarks_per_batch", type=int, default=24, help="P, with --data batches (default: %(default)s)")
    add("--images_per_landmark", type=int, default=4, help="K, with --data batches (default: %(default)s)")
    add("--margin", type=float, default=0.2, help="of the loss (default: %(default)s)")
    add("--filters", type=int, nargs="+", default=FILTERS, help="of the convolutions (default: 32 64 128 128)")
    add("--backbone", metavar="NAME", help="of keras.applications, such as ResNet50, in place of convolutions")
    add("--backbone_weights", metavar="FILE", help="its weights, without the classifier (default: random ones)")
    precisions = ("float32", "mixed_bfloat16", "mixed_float16")
    add("--precision", choices=precisions, default=precisions[0], help="(default: %(default)s)")
    add("--embedding_size", type=int, default=64, help="(default: %(default)s)")
    add("--learning_rate", type=float, default=1e-3, help="of Adam (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and draws (default: %(default)s)")
    add("--device", choices=("auto", "one", "mirrored", "tpu"), default="auto", help="(default: %(default)s)")
    add("--threads", type=int, default=0, help="of TensorFlow's operations; 0: one per core (default: %(default)s)")
    add("--verbose", type=int, choices=(0, 1, 2), default=1, help="Keras's: none, a bar, lines (default: %(default)s)")
    args = parser.parse_args(arguments)
    for name in ("steps", "evaluate_every", "batch_size", "embedding_size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}.")
    if args.backbone and not inspect.isfunction(getattr(keras.applications, args.backbone, None)):
        parser.error(f"--backbone {args.backbone} is no network of keras.applications, such as ResNet50.")
    if args.backbone_weights and not (args.backbone and Path(args.backbone_weights).is_file()):
        parser.error(f"--backbone_weights {args.backbone_weights} must be a file, with the weights of --backbone.")
    return args


def main(arguments: list[str] | None = None) -> None:
    """Runs the program."""
    args = parse(arguments)
    if args.threads:
        tf.config.threading.set_intra_op_parallelism_threads(args.threads)
        tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    try:
        train(args)
    except (NotPreparedError, LandmarkTripletsError) as error:
        sys.exit(f"train_embedding.py: {error}")


if __name__ == "__main__":
    main()
