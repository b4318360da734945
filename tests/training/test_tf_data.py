"""Fresh triplets and batches through tf.data: the records drawn, decoded as tfds.load decodes them, epoch by epoch."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds.training.epochs import EpochSampler, FreshTriplets, LandmarkBatches
from landmark_triplets_tfds.training.records import read_image_index
from landmark_triplets_tfds.training.tf_data import batches_as_tf_dataset, images_as_tf_dataset, triplets_as_tf_dataset
from tests.support.competition import build_images, images_config
from tests.support.fake_source import FakeSource, image_index

pytest.importorskip("array_record")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """Prepared with random access, and as TFRecords, which TFDS's own reader of tf.data needs."""
    folder = tmp_path_factory.mktemp("prepared")
    config = images_config(resolution=32, images_per_landmark=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDMARK_TRIPLETS_BANK", str(folder / "bank"))
        return {
            file_format: build_images(folder / file_format, config, file_format=file_format)
            for file_format in ("array_record", "tfrecord")
        }


@pytest.fixture(scope="module")
def source(builder):
    return builder["array_record"].as_data_source(split="train")


@pytest.fixture(scope="module")
def stored(builder):
    """The examples as TFDS's own reader gives them, by id."""
    return {e["image_id"]: e for e in tfds.as_numpy(builder["tfrecord"].as_dataset(split="train"))}


def ids_of(triplets):
    return [(t["anchor_id"], t["positive_id"], t["negative_id"]) for t in triplets]


def test_triplets(source, stored):
    triplets = FreshTriplets(source, seed=3, epoch=5)
    dataset = triplets_as_tf_dataset(triplets, shuffle=False)
    assert len(dataset) == len(triplets)
    read = list(tfds.as_numpy(dataset))
    assert ids_of(read) == ids_of(triplets)
    for triplet, same in zip(read, triplets, strict=True):
        assert list(triplet) == list(same)
        for name in ("anchor", "positive", "negative"):
            assert (triplet[f"{name}_img"] == stored[triplet[f"{name}_id"]]["image"]).all()
        assert triplet["landmark_id"] == same["landmark_id"]
        assert triplet["negative_landmark_id"] == same["negative_landmark_id"]
    assert dataset.element_spec["anchor_img"].shape == (32, 32, 3)


def test_epochs_follow_each_other_in_the_order_of_the_sampler(source):
    triplets = FreshTriplets(source, seed=3, epoch=5)
    sampler = EpochSampler(triplets)
    expected = ids_of(triplets[item] for _ in range(2) for item in sampler)
    dataset = triplets_as_tf_dataset(triplets, num_epochs=2)
    assert len(dataset) == 2 * len(triplets)
    assert ids_of(tfds.as_numpy(dataset)) == expected
    assert ids_of(tfds.as_numpy(dataset)) == expected  # again: the same
    assert expected[: len(triplets)] != expected[len(triplets) :]


@pytest.mark.parametrize("start", [0, 1, 17])
def test_epochs_go_on_in_the_middle(source, start):
    triplets = FreshTriplets(source, seed=3, epoch=5)
    whole = ids_of(tfds.as_numpy(triplets_as_tf_dataset(triplets, num_epochs=2)))
    rest = triplets_as_tf_dataset(triplets, num_epochs=2, start=start)
    assert len(rest) == len(whole) - start
    assert ids_of(tfds.as_numpy(rest)) == whole[start:]
    with pytest.raises(ValueError, match="start must be a whole number between 0 and"):
        triplets_as_tf_dataset(triplets, start=len(triplets) + 1)


def test_batches_go_on_in_the_middle(source):
    batches = LandmarkBatches(source, 3, 4, seed=1, epoch=2)
    whole, rest = (
        [ids.tolist() for _, ids in tfds.as_numpy(batches_as_tf_dataset(source, batches, num_epochs=2, start=start))]
        for start in (0, 1)
    )
    assert rest == whole[1:]
    assert len(whole) == 2 * len(batches)


def test_batches(source, stored):
    batches = LandmarkBatches(source, 3, 4, seed=1, epoch=2)
    dataset = batches_as_tf_dataset(source, batches, num_epochs=2)
    assert len(dataset) == 2 * len(batches)
    numbers = np.concatenate([batches.record_numbers(2), batches.record_numbers(3)])
    read = list(tfds.as_numpy(dataset))
    assert len(read) == len(numbers)
    for (images, landmark_ids), batch in zip(read, numbers.tolist(), strict=True):
        assert images.shape == (12, 32, 32, 3)
        assert landmark_ids.tolist() == [source[number]["landmark_id"] for number in batch]
        for image, number in zip(images, batch, strict=True):
            assert (image == stored[source[number]["image_id"]]["image"]).all()
    assert batches.epoch == 2


def test_keras_trains_on_epochs(source):
    import keras

    triplets = FreshTriplets(source)
    dataset = triplets_as_tf_dataset(triplets, num_epochs=2).batch(8, drop_remainder=True)
    steps = len(triplets) // 8
    inputs = [keras.Input((32, 32, 3)) for _ in range(3)]
    embed = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    anchor, positive, negative = (embed(image) for image in inputs)
    model = keras.Model(inputs, keras.ops.sum((anchor - positive) ** 2 - (anchor - negative) ** 2, axis=-1))
    model.compile("sgd", loss=lambda y_true, y_pred: keras.ops.mean(keras.ops.relu(y_pred + 0.2)))
    names = ("anchor_img", "positive_img", "negative_img")
    pairs = dataset.map(lambda t: (tuple(t[name] for name in names), t["landmark_id"]))
    history = model.fit(pairs, epochs=2, steps_per_epoch=steps, verbose=0)
    assert len(history.history["loss"]) == 2


@pytest.mark.parametrize("what", ["triplets", "batches"])
def test_other_sources(what):
    index = image_index([1, 1, 2, 2])
    fake = FakeSource(index)
    make = {
        "triplets": lambda: triplets_as_tf_dataset(FreshTriplets(fake, index=index)),
        "batches": lambda: batches_as_tf_dataset(fake, LandmarkBatches(fake, 1, 2, index=index)),
    }[what]
    with pytest.raises(TypeError, match=r"expected the data source of a prepared dataset.*got a FakeSource"):
        make()


def test_images_in_record_order(builder, source, stored):
    dataset = images_as_tf_dataset(source)
    assert len(dataset) == len(source)
    assert dataset.element_spec["image"].shape == (32, 32, 3)
    read = list(tfds.as_numpy(dataset))
    index = read_image_index(builder["array_record"].data_dir)
    assert [int(example["image_id"], 16) for example in read] == index.image_ids.tolist()
    for example in read:
        same = stored[example["image_id"]]
        assert example.keys() == same.keys()
        assert (example["image"] == same["image"]).all()
        assert example["landmark_id"] == same["landmark_id"]
