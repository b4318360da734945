"""The same prepared data through every framework: the same records, and pixels within a stated bound.

Tests that need PyTorch, Grain, JAX, pytorch-metric-learning or TensorFlow Similarity are skipped where it is missing;
.ci/frameworks installs them and runs this file.
"""

import functools
import itertools
import os
import pathlib
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds import (
    EpochSampler,
    FreshTriplets,
    LandmarkBatches,
    TensorFlowPixels,
    batches_as_tf_dataset,
    triplets_as_tf_dataset,
)
from tests.support import pages, readers
from tests.support.competition import (
    DUMMY_DATA,
    REPOSITORY,
    Competition,
    build,
    build_images,
    custom_config,
    images_config,
    run,
)
from tests.support.helpers import encode_image, smooth_pixels
from tests.support.readers import need_grain, need_torch

pytest.importorskip("array_record", reason="needs array_record, for random access")

IMAGES = {"landmark_images": ("image",), "landmark_triplets": ("anchor_img", "positive_img", "negative_img")}

# How far OpenCV's and Pillow's pixels may be from TensorFlow's, in levels of 256, at any place and on the average of an
# image. On 2,205 photographs it was at most 19 and 3.4: docs/reading.md.
MAX_DIFFERENCE = 24
MAX_MEAN_DIFFERENCE = 5.0

# Of the notebook's kind of batch and of P x K.
BATCH_SIZE = 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, dict[str, pathlib.Path]]:
    """The folders of both datasets, by dataset and file format; one image of the competition is grey."""
    data_dir = tmp_path_factory.mktemp("data")
    competition = Competition(data_dir / "competition")
    competition.path(competition.ids()[0]).write_bytes(encode_image(smooth_pixels(80, 60)[..., 0]))
    configs = {
        "landmark_images": (build_images, images_config(resolution=32, images_per_landmark=None)),
        "landmark_triplets": (build, custom_config(resolution=32, images_per_landmark=None)),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDMARK_TRIPLETS_BANK", str(data_dir / "bank"))
        return {
            dataset: {
                file_format: pathlib.Path(
                    make(data_dir / file_format, config, competition.folder, file_format=file_format).data_dir
                )
                for file_format in ("tfrecord", "array_record")
            }
            for dataset, (make, config) in configs.items()
        }


@pytest.fixture(scope="module")
def source(folders):
    """Single images at random access, with TensorFlow's pixels."""
    builder = tfds.builder_from_directory(folders["landmark_images"]["array_record"])
    return builder.as_data_source(split="train", decoders={"image": TensorFlowPixels()})


@pytest.fixture(scope="module")
def stored(folders):
    """All records of both datasets, by dataset and whether decoded, as ``tfds.load`` gives them."""
    return functools.cache(lambda dataset, decode: readers.with_tf_data(folders[dataset], IMAGES[dataset], decode))


def ids_of(triplets) -> list[tuple[str, ...]]:
    return [tuple(plain[f"{name}_id"] for name in ("anchor", "positive", "negative")) for plain in triplets]


def expected_ids(triplets, items) -> list[tuple[str, ...]]:
    return ids_of(readers.plain(triplet) for triplet in triplets.__getitems__(list(items)))


# --- Stored records


@pytest.mark.parametrize("reader", readers.READERS)
@pytest.mark.parametrize("dataset", IMAGES)
def test_ids_and_stored_bytes_agree(dataset, reader, folders, stored):
    expected = stored(dataset, decode=False)
    assert len(expected) == {"landmark_images": 45, "landmark_triplets": 43}[dataset]
    assert all(record[name][:2] == b"\xff\xd8" for record in expected for name in IMAGES[dataset])
    assert readers.READERS[reader](folders[dataset], IMAGES[dataset], decode=False) == expected


@pytest.mark.parametrize("reader", [name for name in readers.READERS if "2 workers" not in name])
@pytest.mark.parametrize("dataset", IMAGES)
def test_pixels_agree(dataset, reader, folders, stored):
    read = readers.READERS[reader](folders[dataset], IMAGES[dataset], decode=True)
    for record, expected in zip(read, stored(dataset, decode=True), strict=True):
        assert record.keys() == expected.keys()
        for name in IMAGES[dataset]:
            assert (record[name].dtype, record[name].shape) == (np.uint8, (32, 32, 3))
            difference = np.abs(record[name].astype(int) - expected[name])
            assert difference.max() <= (0 if reader in readers.OF_TENSORFLOW else MAX_DIFFERENCE)
            assert difference.mean() <= MAX_MEAN_DIFFERENCE


def test_without_opencv_pillow_decodes_to_the_same(folders, stored, monkeypatch):
    """Which of them is installed depends on the machine."""
    monkeypatch.setattr("tensorflow_datasets.core.features.image_feature.cv2", None)
    read = readers.with_data_source(folders["landmark_images"], ("image",), decode=True)
    for record, expected in zip(read, stored("landmark_images", decode=True), strict=True):
        assert np.abs(record["image"].astype(int) - expected["image"]).max() <= MAX_DIFFERENCE


def test_tensorflow_pixels_through_tfds_load(folders, stored):
    builder = tfds.builder_from_directory(folders["landmark_images"]["tfrecord"])
    dataset = builder.as_dataset(split="train", decoders={"image": TensorFlowPixels()})
    for record, expected in zip(tfds.as_numpy(dataset), stored("landmark_images", decode=True), strict=True):
        assert (record["image"] == expected["image"]).all()


# --- PyTorch


def torch_loader(torch, triplets, sampler, workers):
    options = readers.worker_options(workers)
    return torch.utils.data.DataLoader(triplets, batch_size=BATCH_SIZE, sampler=sampler, **options)


def ids_of_batches(batches) -> list[tuple[str, ...]]:
    names = ("anchor_id", "positive_id", "negative_id")
    return ids_of(record for batch in batches for record in readers.unbatch({name: batch[name] for name in names}))


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_reads_fresh_triplets_in_each_epoch(workers, source):
    torch = need_torch()
    triplets = FreshTriplets(source, seed=3, epoch=5)
    loader = torch_loader(torch, triplets, EpochSampler(triplets), workers)
    epochs = [list(loader) for _ in range(3)]
    sampler = EpochSampler(triplets)
    for batches in epochs:
        assert ids_of_batches(batches) == expected_ids(triplets, sampler)
    assert len({positive for epoch in epochs for _, positive, _ in ids_of_batches(epoch)}) > 20
    first = epochs[0][0]
    assert first["anchor_img"].dtype == torch.uint8
    assert tuple(first["anchor_img"].shape) == (BATCH_SIZE, 32, 32, 3)
    assert first["landmark_id"].dtype == torch.int64
    same = triplets[next(iter(EpochSampler(triplets)))]
    assert (first["negative_img"][0].numpy() == same["negative_img"]).all()


FORKING = """
import sys

import tensorflow_datasets as tfds
import torch

from landmark_triplets_tfds import EpochSampler, FreshTriplets, LandmarkBatches

source = tfds.builder_from_directory(sys.argv[1]).as_data_source(split="train")
triplets = FreshTriplets(source)
batches = LandmarkBatches(source, 3, 4)
loaders = {
    "triplets": lambda: torch.utils.data.DataLoader(
        triplets, 8, sampler=EpochSampler(triplets), num_workers=2, multiprocessing_context="fork"
    ),
    "batches": lambda: torch.utils.data.DataLoader(
        source, batch_sampler=batches, num_workers=2, multiprocessing_context="fork"
    ),
}
for name, make in loaders.items():
    print(name, sum(len(batch["landmark_id"]) for _ in range(2) for batch in make()))
triplets[0]
for name, make in loaders.items():
    try:
        next(iter(make()))
    except RuntimeError as error:
        print(name, str(error).splitlines()[-1])
"""


@pytest.mark.slow
def test_forked_workers_read_or_say_why_they_cannot(folders):
    """PyTorch forks its workers by default on Linux; array_record crashes in them if a record was read before."""
    need_torch()
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    done = run(sys.executable, "-c", FORKING, folders["landmark_images"]["array_record"])
    triplets, batches, triplets_after, batches_after = done.stdout.splitlines()
    assert (triplets, batches.split()[0]) == ("triplets 86", "batches")
    assert int(batches.split()[1]) > 0
    for line in (triplets_after, batches_after):
        assert "ForkedReaderError: This process was forked from one that had read records already" in line
        assert "multiprocessing_context='forkserver'" in line


def test_torch_processes_that_train_together_share_an_epoch(source):
    torch = need_torch()
    triplets = FreshTriplets(source, seed=3)
    shards = []
    for shard in range(2):
        sampler = EpochSampler(triplets, num_shards=2, shard=shard)
        sampler.set_epoch(4)
        shards.append(ids_of_batches(torch_loader(torch, triplets, sampler, 0)))
    whole = EpochSampler(triplets)
    whole.set_epoch(4)
    in_turns = [triplet for pair in zip(*shards, strict=True) for triplet in pair]
    assert in_turns == expected_ids(triplets, whole)[:42]


@pytest.mark.parametrize("num_shards", [1, 2])
@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("what", ["triplets", "batches"])
def test_torch_goes_on_after_any_batch(what, workers, num_shards, source):
    """A training that is cut off goes on with the very next batch, in this epoch or in the next one."""
    need_torch()
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    triplets = FreshTriplets(source, seed=3, epoch=5)

    def open_loader(shard):
        shards = {"num_shards": num_shards, "shard": shard}
        if what == "triplets":
            options = {"dataset": triplets, "batch_size": BATCH_SIZE, "sampler": EpochSampler(triplets, **shards)}
        else:
            options = {"dataset": source, "batch_sampler": LandmarkBatches(source, 2, 2, seed=1, **shards)}
        return stateful.StatefulDataLoader(**options, **readers.worker_options(workers))

    def ids(batches):
        return [list(batch["anchor_id" if what == "triplets" else "image_id"]) for batch in batches]

    for shard in range(num_shards):
        loader = open_loader(shard)
        num_batches, states, whole = len(loader), [], []
        for _ in range(2):
            for batch in loader:
                whole += ids([batch])
                states.append(loader.state_dict())
        some = {1, 2, num_batches - 1, num_batches, num_batches + 1}
        for num_seen in some if workers else range(1, len(whole)):
            again = open_loader(shard)
            again.load_state_dict(states[num_seen - 1])
            rest = ids(itertools.chain(again, again))
            assert rest[: len(whole) - num_seen] == whole[num_seen:]


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_goes_on_where_the_program_says(workers, source):
    torch = need_torch()
    triplets = FreshTriplets(source, seed=3, epoch=5)
    whole = [ids_of_batches([batch]) for batch in torch_loader(torch, triplets, EpochSampler(triplets), workers)]
    sampler = EpochSampler(triplets)
    sampler.load_state_dict({"epoch": 5, "start": 2 * BATCH_SIZE})
    assert [ids_of_batches([batch]) for batch in torch_loader(torch, triplets, sampler, workers)] == whole[2:]


def test_torch_without_the_sampler_repeats_its_epoch(source):
    """Why there is a sampler: a plain loader gives the triplets of one epoch, in another order."""
    torch = need_torch()
    triplets = FreshTriplets(source, seed=3)
    loader = torch.utils.data.DataLoader(triplets, batch_size=BATCH_SIZE, shuffle=True)
    first, second = (ids_of_batches(loader) for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(expected_ids(triplets, range(len(triplets))))


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_reads_batches_of_landmarks(workers, source):
    torch = need_torch()
    batches = LandmarkBatches(source, 3, 4, seed=1)
    loader = torch.utils.data.DataLoader(source, batch_sampler=batches, **readers.worker_options(workers))
    assert len(loader) == len(batches)
    for epoch in range(2):
        read = list(loader)
        for batch, numbers in zip(read, batches.record_numbers(epoch).tolist(), strict=True):
            records = source.__getitems__(numbers)
            assert [i.decode() if isinstance(i, bytes) else i for i in batch["image_id"]] == [
                readers.plain(record)["image_id"] for record in records
            ]
            assert (batch["image"].numpy() == np.stack([record["image"] for record in records])).all()
            assert batch["landmark_id"].reshape(3, 4).eq(batch["landmark_id"].reshape(3, 4)[:, :1]).all()


def test_pytorch_metric_learning_trains_on_batches_of_landmarks(source):
    torch = need_torch()
    reason = "needs pytorch-metric-learning: pip install '.[torch]'"
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason=reason)
    miners = pytest.importorskip("pytorch_metric_learning.miners", reason=reason)
    torch.manual_seed(0)
    embed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32 * 3, 8))
    optimizer = torch.optim.Adam(embed.parameters(), 1e-4)
    miner, loss_of = miners.BatchHardMiner(), losses.TripletMarginLoss(margin=0.2)
    batches = LandmarkBatches(source, 4, 2)
    loader = torch.utils.data.DataLoader(source, batch_sampler=batches)
    means = []
    for _ in range(8):
        epoch = []
        for batch in loader:
            embeddings, landmarks = embed(batch["image"].float() / 255), batch["landmark_id"]
            anchors, positives, negatives = mined = miner(embeddings, landmarks)
            assert len(anchors) == batches.batch_size  # in P x K, each image is an anchor
            assert landmarks[anchors].eq(landmarks[positives]).all()
            assert not landmarks[anchors].eq(landmarks[negatives]).any()
            loss = loss_of(embeddings, landmarks, mined)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            epoch.append(loss.item())
        means.append(np.mean(epoch))
    assert np.isfinite(means).all()
    assert means[-1] < means[0]


# --- Grain and JAX


def test_grain_reads_fresh_triplets_as_they_are(source):
    grain = need_grain()
    triplets = FreshTriplets(source, seed=3)
    dataset = grain.MapDataset.source(triplets).shuffle(seed=1).batch(BATCH_SIZE)
    batches = list(readers.iterate_grain(grain, dataset, 0))
    assert sorted(ids_of_batches(batches)) == sorted(expected_ids(triplets, range(len(triplets))))
    assert batches[0]["anchor_img"].shape == (BATCH_SIZE, 32, 32, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_grain_reads_other_triplets_in_each_epoch(workers, source):
    grain = need_grain()
    triplets = FreshTriplets(source, seed=3)
    size = len(triplets)
    dataset = grain.MapDataset.range(size).shuffle(seed=1).repeat(3)
    dataset = dataset.map_with_index(lambda index, number: triplets[index // size, number]).batch(BATCH_SIZE)
    read = ids_of_batches(readers.iterate_grain(grain, dataset, workers))
    assert len(read) == 3 * size
    for epoch in range(3):
        here = read[epoch * size : (epoch + 1) * size]
        assert sorted(here) == sorted(expected_ids(triplets, [(epoch, number) for number in range(size)]))
        assert here != expected_ids(triplets, [(epoch, number) for number in range(size)])


def test_grain_goes_on_in_the_middle(source):
    grain = need_grain()
    triplets = FreshTriplets(source, seed=3)
    dataset = grain.MapDataset.range(len(triplets)).shuffle(seed=0).repeat(2)
    dataset = dataset.map_with_index(lambda index, number: triplets[index // len(triplets), number])
    iterator = iter(dataset.to_iter_dataset())
    for _ in range(len(triplets) + 5):
        next(iterator)
    again = iter(dataset.to_iter_dataset())
    again.set_state(iterator.get_state())
    assert ids_of(again) == ids_of(iterator)


def test_grain_reads_batches_of_landmarks_into_jax(source):
    grain = need_grain()
    jax = pytest.importorskip("jax", reason="needs JAX: pip install '.[jax]'")
    batches = LandmarkBatches(source, 3, 4, seed=1)

    def read(numbers):
        records = source.__getitems__(numbers.tolist())
        return {name: np.stack([record[name] for record in records]) for name in ("image", "landmark_id")}

    dataset = grain.MapDataset.source(batches.record_numbers(epoch=0)).map(read)
    mean = jax.jit(lambda images: images.astype("float32").mean(axis=(1, 2, 3)))
    num_read = 0
    for batch in readers.iterate_grain(grain, dataset, 0):
        assert np.allclose(mean(batch["image"]), batch["image"].mean(axis=(1, 2, 3)), rtol=1e-4)
        assert (batch["landmark_id"].reshape(3, 4) == batch["landmark_id"].reshape(3, 4)[:, :1]).all()
        num_read += 1
    assert num_read == len(batches)


# --- TensorFlow Similarity


@pytest.mark.parametrize("loss_name", ["TripletLoss", "MultiSimilarityLoss"])
def test_tensorflow_similarity_trains_on_batches_of_landmarks(loss_name, source):
    losses = pytest.importorskip("tensorflow_similarity.losses", reason="needs TensorFlow Similarity")
    import keras

    keras.utils.set_random_seed(0)
    # Its default for `reduction` is one that Keras 3 does not know, and it branches on tensors, for which Keras 2 had
    # TensorFlow rewrite the code.
    loss = getattr(losses, loss_name)(reduction="sum_over_batch_size")
    embed = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(8),
            keras.layers.UnitNormalization(),
        ]
    )
    embed.compile(keras.optimizers.Adam(1e-4), loss=loss, run_eagerly=True)
    batches = LandmarkBatches(source, 4, 2)
    dataset = batches_as_tf_dataset(source, batches, num_epochs=8)
    history = embed.fit(dataset, epochs=8, steps_per_epoch=len(batches), verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]


# --- All together


def test_all_frameworks_draw_the_same_triplets(source):
    triplets = FreshTriplets(source, seed=3, epoch=5)
    torch, grain = need_torch(), need_grain()
    expected = expected_ids(triplets, range(len(triplets)))
    through_tf = triplets_as_tf_dataset(triplets, shuffle=False)
    assert ids_of(readers.plain(triplet) for triplet in tfds.as_numpy(through_tf)) == expected
    assert ids_of_batches(torch.utils.data.DataLoader(triplets, batch_size=BATCH_SIZE)) == expected
    assert ids_of_batches(grain.MapDataset.source(triplets).batch(BATCH_SIZE)) == expected


@pytest.mark.slow
def test_the_page_on_reading(tmp_path, monkeypatch):
    """What tests/test_pages.py leaves out where PyTorch and Grain are missing."""
    need_torch(), need_grain(), pytest.importorskip("jax"), pytest.importorskip("pytorch_metric_learning")
    (tmp_path / "dummy_data").symlink_to(DUMMY_DATA)
    monkeypatch.chdir(tmp_path)
    page = REPOSITORY / "docs" / "reading.md"
    assert any((block.not_run or "").startswith("needs ") for block in pages.find_blocks(page))
    pages.run_page(page, where_needed=True)
