"""The index of records: written, read, found and compared with the records. Forked processes read, or say why not.

Of the decoder, that its pixels are TensorFlow's; tests/test_frameworks.py has it in use, on prepared data.
"""

from concurrent.futures import ThreadPoolExecutor
import contextlib
import functools
import os
import pathlib
import pickle
import random
import sys

from etils import epath
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from landmark_triplets_tfds.errors import ImageIndexError
from landmark_triplets_tfds.training.records import (
    ImageIndex,
    TensorFlowPixels,
    check_landmark_ids,
    find_index,
    read_image_index,
    read_images,
    write_image_index,
)
from tests.support.competition import REPOSITORY, build_images, images_config, run
from tests.support.fake_source import BatchingSource, FakeSource, image_index
from tests.support.helpers import encode_image, smooth_pixels
from tests.support.special_files import SPECIAL_FILES

TRAIN, VALIDATION = image_index([30, 10, 20, 30]), image_index([7, 8, 7], range(3))


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    write_image_index(epath.Path(tmp_path) / "index.npz", {"train": TRAIN, "validation": VALIDATION})
    return tmp_path


def pairs(index):
    return list(zip(index.image_ids.tolist(), index.landmark_ids.tolist(), strict=True))


# --- The file


@pytest.mark.parametrize(("split", "expected"), [("train", TRAIN), ("validation", VALIDATION)])
def test_each_split_is_read_as_it_was_written(folder, split, expected):
    index = read_image_index(folder, split)
    assert pairs(index) == pairs(expected)
    assert (index.image_ids.dtype, index.landmark_ids.dtype) == (np.uint64, np.int32)


def test_a_split_that_is_not_there(folder):
    with pytest.raises(ImageIndexError, match="has the splits train, validation, but no 'test'"):
        read_image_index(folder, "test")


def rewrite(**changes):
    def change(path):
        with np.load(path) as content:
            fields = dict(content) | changes
        np.savez(path, **{name: value for name, value in fields.items() if value is not None})

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"There is no .*index\.npz.*tfds build landmark_images/128px_all"),
        (lambda path: path.write_bytes(b"x"), r"index\.npz is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), r"index\.npz is damaged"),
        (rewrite(landmark_id=None), r"index\.npz is damaged"),
        (rewrite(image_id=TRAIN.image_ids), r"index\.npz is damaged .*expected as many image ids as landmark ids"),
        (rewrite(landmark_id=np.zeros(7)), r"index\.npz is damaged .*expected uint64 image ids and int32"),
        (rewrite(split_lengths=np.array([4, 4])), r"index\.npz is damaged .*lengths that do not fit"),
        (rewrite(split_names=np.array(["train"])), r"index\.npz is damaged .*lengths that do not fit"),
    ],
    ids=["missing", "no zip", "cut", "fields missing", "ids missing", "other types", "too long", "names missing"],
)
def test_wrong_indexes(folder, damage, message):
    damage(folder / "index.npz")
    with pytest.raises(ImageIndexError, match=message):
        read_image_index(folder)


@pytest.mark.parametrize("how", ["a bit flipped", "zeros", "cut off"])
def test_no_damage_gives_another_index(folder, how):
    """Or an error of another type: what is read is the same, or the file is named."""
    path, rng = folder / "index.npz", random.Random(how)
    whole = path.read_bytes()
    for _ in range(150):
        start, stop = sorted(rng.sample(range(len(whole)), 2))
        flipped = bytes([whole[start] ^ 1 << rng.randrange(8)])
        new = {
            "a bit flipped": flipped + whole[start + 1 :],
            "zeros": bytes(stop - start) + whole[stop:],
            "cut off": b"",
        }
        path.write_bytes(whole[:start] + new[how])
        with contextlib.suppress(ImageIndexError):
            assert pairs(read_image_index(folder)) == pairs(TRAIN)


@pytest.mark.parametrize("what", SPECIAL_FILES)
def test_what_is_no_file(folder, what):
    (folder / "index.npz").unlink()
    SPECIAL_FILES[what](folder / "index.npz")
    with pytest.raises(ImageIndexError, match="is damaged"):
        read_image_index(folder)


def test_landmark_ids_must_fit():
    with pytest.raises(ImageIndexError, match="up to 2147483647, and the table has 2147483648"):
        check_landmark_ids(np.array([1, 2**31]))


# --- The index of a data source


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "A FakeSource does not say which folder its records are in. Give the index"),
        (image_index([1, 1, 2]), "The index lists 3 records, and the data source has 4"),
    ],
)
def test_no_index_that_fits(index, message):
    with pytest.raises(ImageIndexError, match=message):
        find_index(FakeSource(TRAIN), index)


@pytest.mark.parametrize(
    ("landmarks", "message"), [([-1, -1, 3], "2 of the 3 images have no landmark_id"), ([], "has no records")]
)
def test_nothing_to_draw_from(landmarks, message):
    index = image_index(landmarks)
    with pytest.raises(ImageIndexError, match=message):
        find_index(FakeSource(index), index)


def test_part_of_a_split(tmp_path):
    pytest.importorskip("array_record")
    builder = build_images(tmp_path, "64px_1per", file_format="array_record")
    source = builder.as_data_source(split="train[:50%]")
    with pytest.raises(ImageIndexError, match=r"split='train\[:50%\]'.*Open it with split='train'"):
        find_index(source)
    assert pairs(find_index(builder.as_data_source(split="train"))) == pairs(read_image_index(builder.data_dir))


@pytest.mark.parametrize("source_class", [FakeSource, BatchingSource])
def test_records_are_compared_with_the_index(source_class):
    records = read_images(source_class(TRAIN), TRAIN, [2, 0, 2])
    assert [record["landmark_id"] for record in records] == [20, 30, 20]
    other = ImageIndex(TRAIN.image_ids[::-1].copy(), TRAIN.landmark_ids)
    with pytest.raises(ImageIndexError, match="Record 0 holds image 9e3779b97f4a7c15, and the index says"):
        read_images(source_class(TRAIN), other, [0])


# --- Records of array_record files


def raw_source(folder, num_shards=3):
    """Returns a data source of stored records, 45, and these records as array_record itself reads them."""
    pytest.importorskip("array_record")
    config = images_config(resolution=16, images_per_landmark=None)
    builder = build_images(folder, config, file_format="array_record", num_shards=num_shards)
    open_source = functools.partial(
        builder.as_data_source, split="train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    return open_source(), open_source().__getitems__(list(range(45)))


def test_records_read_in_turn_are_those_of_array_record(tmp_path):
    source, expected = raw_source(tmp_path)
    find_index(source)
    find_index(source)
    numbers = np.random.default_rng(0).permutation(45)
    assert source.__getitems__(numbers.tolist()) == [expected[number] for number in numbers]
    assert [source[number] for number in numbers[:5]] == [expected[number] for number in numbers[:5]]
    assert pickle.loads(pickle.dumps(source)).__getitems__([44, 0]) == [expected[44], expected[0]]
    with pytest.raises(ValueError, match="Record key"):
        source[45]
    with ThreadPoolExecutor(8) as pool:
        asked = [int(number) for number in np.random.default_rng(1).integers(0, 45, 2000)]
        assert list(pool.map(source.__getitem__, asked)) == [expected[number] for number in asked]


def read_each(source):
    """Returns each record, None for one that is damaged."""
    records = []
    for number in range(45):
        try:
            records.append(source[number])
        except RuntimeError:
            records.append(None)
    return records


def test_a_damaged_record_leaves_the_others_readable(tmp_path):
    source, expected = raw_source(tmp_path, num_shards=1)
    (path,) = pathlib.Path(source.dataset_info.data_dir).glob("*array_record*")
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
    filled = np.flatnonzero(content)  # the rest is padding
    content[filled[len(filled) // 2]] ^= 1
    path.write_bytes(content.tobytes())
    as_array_record = read_each(source)
    assert None in as_array_record
    assert sum(record in expected for record in as_array_record) > 20
    find_index(source)
    assert read_each(source) == as_array_record


# --- Pixels


@pytest.mark.parametrize("size", [(8, 8), (33, 50), (128, 128)])
@pytest.mark.parametrize("is_grey", [False, True])
def test_the_pixels_are_those_of_tensorflow(size, is_grey):
    noise = np.random.default_rng(0).integers(-40, 40, (*size, 3))
    pixels = np.clip(smooth_pixels(*size).astype(int) + noise, 0, 255).astype(np.uint8)
    encoded = encode_image(pixels[..., 0] if is_grey else pixels)
    decoded = TensorFlowPixels().decode_example_np(encoded)
    assert (decoded == tf.io.decode_jpeg(encoded, channels=3).numpy()).all()
    assert (decoded.dtype, decoded.shape) == (np.uint8, (*size, 3))


@pytest.mark.parametrize("content", [b"not a picture", encode_image(smooth_pixels(64, 64))[:300]])
def test_what_is_no_jpeg(content):
    with pytest.raises(ValueError, match="JPEG"):
        TensorFlowPixels().decode_example_np(content)


# --- Forked processes

# Prints what children read: the first before the parent has read anything, the second after it has read one record.
PROGRAM = """
import os
import sys

import tensorflow_datasets as tfds

from landmark_triplets_tfds.errors import ForkedReaderError
from landmark_triplets_tfds.training.epochs import FreshTriplets, LandmarkBatches

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
    pytest.importorskip("array_record")
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
