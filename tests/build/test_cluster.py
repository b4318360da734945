"""How work is cut into pieces for a cluster, and what a worker checks before it begins."""

import dataclasses
import pickle

from etils import epath
import numpy as np
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build.cluster import (
    ClusterPlan,
    ClusterWorker,
    Outcome,
    choose_images_per_chunk,
)
from landmark_triplets_tfds.build.shards import ShardResult
from landmark_triplets_tfds.common.checked_files import load_object, save_object
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.competition.source import FolderSource
from landmark_triplets_tfds.competition.tables import LandmarkTable, read_landmark_table
from landmark_triplets_tfds.errors import LandmarkTableError, SourceLayoutError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec
from landmark_triplets_tfds.triplets.plan import make_plan as make_example_plan
from landmark_triplets_tfds.triplets.sampling import ImageSamplingSpec, SamplingSpec
from tests.support.competition import DUMMY_DATA, Competition

TABLE = read_landmark_table(DUMMY_DATA / "train.csv")


@pytest.fixture
def make_plan(tmp_path):
    def make(**fields) -> ClusterPlan:
        num_examples = fields.get("num_examples", 43)
        save_object(epath.Path(tmp_path / "order"), np.random.default_rng(0).permutation(num_examples).astype(np.int32))
        plan = ClusterPlan(
            source=find_source(epath.Path(DUMMY_DATA)),
            table_sha256=TABLE.fingerprint,
            kept_rows_path=None,
            spec=SamplingSpec(images_per_landmark=None),
            thumbnail_spec=ThumbnailSpec(resolution=16),
            order_path=str(tmp_path / "order"),
            num_examples=43,
            num_shards=5,
            template=tfds.core.ShardedFileTemplate(
                data_dir=tmp_path, dataset_name="x", split="train", filetype_suffix="tfrecord"
            ),
            file_format="tfrecord",
            images_per_chunk=4,
            num_readers=1,
        )
        return dataclasses.replace(plan, **fields)

    return make


def test_small_builds_are_cut_into_small_pieces():
    assert choose_images_per_chunk(45) == 1
    assert choose_images_per_chunk(1_580_470) == 64


def test_images_of_shards_are_those_of_the_plan(make_plan):
    worker = ClusterWorker(make_plan())
    rows = np.unique(np.concatenate([worker.images_of_shard(i) for i in range(5)]))
    assert rows.tolist() == np.unique(worker.examples.rows(0, 43)).tolist()


def test_kept_rows(tmp_path, make_plan):
    keep = np.arange(TABLE.num_images) % 3 > 0
    save_object(epath.Path(tmp_path / "kept"), keep)
    restricted = TABLE.restrict(keep)
    plan = make_plan(kept_rows_path=str(tmp_path / "kept"), table_sha256=restricted.fingerprint)
    assert ClusterWorker(plan).table.image_ids.tolist() == restricted.image_ids.tolist()


def test_images_without_labels_are_not_listed_again(tmp_path, make_plan):
    ids = np.array([3, 5, 2**64 - 1], dtype=np.uint64)
    save_object(epath.Path(tmp_path / "ids"), ids)
    table = LandmarkTable.without_labels(ids)
    plan = make_plan(
        source=FolderSource(epath.Path(tmp_path / "nowhere"), "train.csv", "index"),
        image_ids_path=str(tmp_path / "ids"),
        table_sha256=table.fingerprint,
        spec=ImageSamplingSpec(split="index"),
        num_examples=3,
        num_shards=1,
    )
    worker = ClusterWorker(pickle.loads(pickle.dumps(plan)))
    assert len(pickle.dumps(plan)) < 4000
    assert worker.examples.keys(0, 3) == ["0000000000000003", "0000000000000005", "ffffffffffffffff"]
    assert worker.table.landmark_ids.tolist() == [-1, -1, -1]


def test_a_worker_that_sees_no_files_says_so(tmp_path, make_plan):
    with pytest.raises(SourceLayoutError, match=r"A worker does not see the files.*No such file"):
        ClusterWorker(make_plan(source=FolderSource(epath.Path(tmp_path / "nowhere"), "train.csv")))


def test_a_worker_that_sees_another_table_says_so(tmp_path, make_plan):
    competition = Competition(tmp_path / "competition")
    table = competition.folder / "train.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(LandmarkTableError, match=r"train\.csv is another table, as a worker sees it"):
        ClusterWorker(make_plan(source=find_source(epath.Path(competition.folder))))


def test_given_triplets_are_mapped_from_local_files(tmp_path):
    save_object(epath.Path(tmp_path / "x"), np.arange(40, dtype=np.int32).reshape(10, 4))
    given = load_object(str(tmp_path / "x"))
    assert not given.flags.writeable
    assert make_example_plan(TABLE, given).rows(3, 5).tolist() == [[12, 13, 14], [16, 17, 18]]


# --- Outcomes


def test_an_image_that_many_shards_met_is_listed_once():
    parts = []
    for number in range(3):
        error = UnreadableImageError(UnreadableImageError.MISSING, "detail")
        part = Outcome({number: ShardResult(1, 10)}, {number: [1, 2, 3], 8: "reason"}, {4: error}, {4})
        parts += [part, part]  # as when a piece is tried again
    total = pickle.loads(pickle.dumps(Outcome.add_up(parts)))
    assert (len(total.shards), total.redrawn) == (3, {4})
    assert total.exceptions == {0: [1, 2, 3], 1: [1, 2, 3], 2: [1, 2, 3], 8: "reason"}
    assert {row: (error.reason, error.detail) for row, error in total.unreadable.items()} == {4: ("missing", "detail")}
    assert len(parts[0].shards) == 1
