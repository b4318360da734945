"""Mined triplets: each choice against a search that compares everything with everything, and what must not matter."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pandas as pd
import pytest

from landmark_triplets_tfds.errors import EmbeddingsError, NoExampleError, TripletsFileError
from landmark_triplets_tfds.mining import hard_triplets, neighbours
from landmark_triplets_tfds.mining.hard_triplets import (
    EASIER,
    HARDER,
    NO_NEGATIVE,
    NO_POSITIVE,
    SEMI_HARD,
    SINGLE_IMAGE,
    MiningSpec,
    mine_triplets,
    write_triplets,
)
from landmark_triplets_tfds.triplets.draws import hash_words
from landmark_triplets_tfds.triplets.examples import TRIPLETS


def make_images(count, dim=6, num_landmarks=5, seed=0, dtype=np.float32, spread=0.7):
    """Returns embeddings, image ids and landmark ids: landmarks that overlap, some exact duplicates, any lengths."""
    rng = np.random.default_rng(seed)
    landmark_ids = rng.integers(0, num_landmarks, count)
    landmark_ids[:2] = 0, 1
    embeddings = rng.normal(size=(num_landmarks, dim))[landmark_ids] + spread * rng.normal(size=(count, dim))
    copies = rng.integers(0, count, (2, count // 8))
    embeddings[copies[0]] = embeddings[copies[1]]
    embeddings *= rng.uniform(0.1, 10, (count, 1))
    image_ids = rng.permutation(np.unique(rng.integers(0, 2**64, 2 * count, dtype=np.uint64)))[:count]
    return embeddings.astype(dtype), image_ids, landmark_ids * 7


def exact_similarities(embeddings):
    vectors = embeddings.astype(np.float64)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    return np.clip(np.einsum("nd,md->nm", vectors, vectors), -1, 1).astype(np.float32)


def mine_slowly(embeddings, image_ids, landmark_ids, spec):
    """Does as the documentation says, one image after the other. Returns triplets of rows and counts by reason."""
    similarities = exact_similarities(embeddings)
    ceiling = np.float32(spec.max_similarity)
    by_place = np.lexsort((image_ids, landmark_ids)).tolist()
    triplets, reasons = [], {SINGLE_IMAGE: 0, NO_POSITIVE: 0, NO_NEGATIVE: 0}
    for anchor in range(len(image_ids)):
        to = similarities[anchor]
        others = [row for row in by_place if landmark_ids[row] == landmark_ids[anchor] and row != anchor]
        positives = [row for row in others if to[row] <= ceiling]
        far = [row for row in by_place if landmark_ids[row] != landmark_ids[anchor] and to[row] <= ceiling]
        nearest = sorted(far, key=lambda row: -to[row])[: spec.neighbours]  # sorting is stable
        if not others:
            reasons[SINGLE_IMAGE] += 1
        elif not positives:
            reasons[NO_POSITIVE] += 1
        elif not nearest:
            reasons[NO_NEGATIVE] += 1
        else:
            if spec.positive == "hardest":
                positive = min(positives, key=lambda row: to[row])
            else:
                bits = int(hash_words(0x6D696E65, spec.seed, image_ids[anchor : anchor + 1])[0])
                positive = positives[bits * len(positives) >> 64]
            negative = nearest[0]
            if spec.negative == "semi-hard":
                less = [row for row in nearest if to[row] < to[positive]]
                within = [row for row in less if 2 * (float(to[positive]) - float(to[row])) < spec.margin]
                negative = within[0] if within else less[0] if less else nearest[-1]
            triplets.append((anchor, positive, negative))
    return triplets, reasons


SPECS = st.builds(
    MiningSpec,
    positive=st.sampled_from(["random", "hardest"]),
    negative=st.sampled_from(["semi-hard", "hardest"]),
    neighbours=st.integers(1, 40),
    max_similarity=st.sampled_from([-0.5, 0.3, 0.8, 0.95, 1.0]),
    margin=st.sampled_from([0.01, 0.2, 2.0]),
    seed=st.integers(0, 2**64 - 1),
)


@settings(max_examples=150, deadline=None)
@given(
    spec=SPECS,
    count=st.integers(2, 90),
    dim=st.sampled_from([1, 2, 3, 16]),
    num_landmarks=st.integers(2, 40),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([np.float16, np.float32]),
    blocks=st.sampled_from([(1, 1), (7, 5), (16, 40), (1024, 8192)]),
)
def test_triplets_are_those_of_the_definition(spec, count, dim, num_landmarks, seed, dtype, blocks):
    images = make_images(count, dim, num_landmarks, seed, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hard_triplets, "ROWS_PER_BLOCK", blocks[0])
        patch.setattr(neighbours, "_COLUMNS_PER_BLOCK", blocks[1])
        patch.setattr(hard_triplets, "_NUM_PRODUCTS", 4 * blocks[1])
        mined = mine_triplets(*images, spec)
    triplets, reasons = mine_slowly(*images, spec)
    assert mined.num_left_out == reasons
    assert mined.num_anchors == count == len(mined) + sum(reasons.values())
    assert mined.rows.tolist() == [list(triplet) for triplet in triplets]
    embeddings, image_ids, landmark_ids = images
    assert mined.image_ids.tolist() == image_ids[mined.rows].tolist()
    similarities = exact_similarities(embeddings)
    assert mined.similarities.tolist() == similarities[mined.rows[:, :1], mined.rows[:, 1:]].tolist()
    above = (similarities > np.float32(spec.max_similarity)) & ~np.eye(count, dtype=bool)
    same = landmark_ids == landmark_ids[:, np.newaxis]
    assert mined.num_passed_over == {"positive": (above & same).sum(), "negative": (above & ~same).sum()}
    lead = mined.similarities[:, 0].astype(float) - mined.similarities[:, 1]
    semi = (lead > 0) & (2 * lead < spec.margin)
    assert mined.num_negatives == {
        SEMI_HARD: semi.sum(),
        HARDER: (lead <= 0).sum(),
        EASIER: ((lead > 0) & ~semi).sum(),
    }


def test_many_columns_and_ties(monkeypatch):
    # Enough columns for bounds by groups, duplicates by the dozen, and one landmark that fills several blocks.
    embeddings, image_ids, landmark_ids = make_images(1500, dim=8, num_landmarks=40, seed=3)
    landmark_ids[200:900] = 1
    embeddings[::5] = embeddings[0]
    spec = MiningSpec(neighbours=3, max_similarity=1.0, negative="hardest")
    triplets, _ = mine_slowly(embeddings, image_ids, landmark_ids, spec)
    for rows, columns in ((1024, 8192), (100, 700), (1500, 128)):
        monkeypatch.setattr(hard_triplets, "ROWS_PER_BLOCK", rows)
        monkeypatch.setattr(neighbours, "_COLUMNS_PER_BLOCK", columns)
        mined = mine_triplets(embeddings, image_ids, landmark_ids, spec)
        assert mined.rows.tolist() == [list(triplet) for triplet in triplets]


def test_equal_embeddings_are_no_trouble():
    # A model that has collapsed: everything is as near as everything else, so the lowest ids of each landmark count.
    image_ids = np.arange(3000, dtype=np.uint64)
    landmark_ids = np.arange(3000) // 10
    mined = mine_triplets(np.ones((3000, 4), np.float16), image_ids, landmark_ids, MiningSpec(max_similarity=1.0))
    assert len(mined) == 3000
    assert mined.num_negatives[HARDER] == 3000
    assert (mined.similarities == 1).all()
    assert set(mined.rows[:, 2].tolist()) == {49, 59}  # the last of the 50 nearest
    all_above = mine_triplets(np.ones((3000, 4), np.float16), image_ids, landmark_ids)
    assert all_above.num_left_out == {SINGLE_IMAGE: 0, NO_POSITIVE: 3000, NO_NEGATIVE: 0}


def test_a_ceiling_of_1_passes_nothing_over():
    # Scaled to length 1 and rounded, a vector's product with itself may be more than 1.
    embeddings = np.repeat(np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32), 4, axis=0)
    mined = mine_triplets(
        embeddings, np.arange(2000, dtype=np.uint64), np.arange(2000) // 2, MiningSpec(max_similarity=1.0)
    )
    assert len(mined) == 2000
    assert mined.num_passed_over == {"positive": 0, "negative": 0}
    assert mined.similarities.max() == 1


def test_the_order_of_rows_and_the_lengths_of_embeddings_do_not_matter():
    embeddings, image_ids, landmark_ids = make_images(300, seed=5)
    mined = mine_triplets(embeddings, image_ids, landmark_ids)
    order = np.random.default_rng(0).permutation(300)
    factors = np.random.default_rng(1).choice([0.5, 4.0], (300, 1)).astype(np.float32)  # they round nothing
    again = mine_triplets(embeddings[order] * factors, image_ids[order], landmark_ids[order])
    assert again.rows[:, 0].tolist() == sorted(again.rows[:, 0].tolist())
    assert sorted(again.image_ids.tolist()) == sorted(mined.image_ids.tolist())


def test_extreme_numbers_keep_their_direction():
    embeddings, image_ids, landmark_ids = make_images(60, seed=8)
    mined = mine_triplets(embeddings, image_ids, landmark_ids)
    for factor in (2.0**100, 2.0**-110):
        again = mine_triplets(embeddings * np.float32(factor), image_ids, landmark_ids)
        assert again.rows.tolist() == mined.rows.tolist()


def test_a_seed_changes_random_positives_and_nothing_else():
    images = make_images(400, seed=2)
    first, second = (mine_triplets(*images, MiningSpec(seed=seed, negative="hardest")) for seed in (0, 1))
    assert first.rows[:, [0, 2]].tolist() == second.rows[:, [0, 2]].tolist()
    assert 0.3 < (first.rows[:, 1] != second.rows[:, 1]).mean() < 1
    hardest = [mine_triplets(*images, MiningSpec(seed=seed, positive="hardest")).rows.tolist() for seed in (0, 1)]
    assert hardest[0] == hardest[1]


def test_another_image_changes_no_random_positive_of_other_landmarks():
    embeddings, image_ids, landmark_ids = make_images(200, seed=4)
    spec = MiningSpec(max_similarity=1.0)
    whole = {ids[0]: ids[1] for ids in mine_triplets(embeddings, image_ids, landmark_ids, spec).image_ids.tolist()}
    keep = landmark_ids != 7
    part = mine_triplets(embeddings[keep], image_ids[keep], landmark_ids[keep], spec)
    assert len(part) > 100
    assert all(whole[anchor] == positive for anchor, positive, _ in part.image_ids.tolist())


def test_memory_mapped_and_strided_embeddings(tmp_path):
    embeddings, image_ids, landmark_ids = make_images(100)
    np.save(tmp_path / "e.npy", np.asfortranarray(embeddings.astype(">f4")))
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    expected = mine_triplets(embeddings, image_ids, landmark_ids)
    assert mine_triplets(mapped, image_ids, landmark_ids).rows.tolist() == expected.rows.tolist()


def test_progress_counts_every_anchor(monkeypatch):
    monkeypatch.setattr(hard_triplets, "ROWS_PER_BLOCK", 30)
    counts = []
    mine_triplets(*make_images(100), on_mined=counts.append)
    assert counts == [30, 30, 30, 10]


def test_triplets_are_pinned():
    # Other numbers here are other triplets for people who note the seed: say so in the changelog.
    embeddings = np.array([[1, 0], [9, 1], [8, 3], [5, 5], [3, 7], [2, 8], [1, 9], [0, 1]], np.float32)
    landmark_ids = np.array([1, 1, 1, 1, 2, 2, 2, 2])
    mined = mine_triplets(embeddings, np.arange(8, dtype=np.uint64) << np.uint64(60), landmark_ids, MiningSpec(seed=3))
    assert mined.rows.tolist() == [[0, 2, 4], [1, 3, 4], [2, 0, 4], [3, 1, 7], [4, 7, 2], [7, 4, 3]]


# --- What cannot be mined


def changed(**changes):
    embeddings, image_ids, landmark_ids = make_images(20)
    return {"embeddings": embeddings, "image_ids": image_ids, "landmark_ids": landmark_ids} | {
        name: change(array)
        for name, change in changes.items()
        for array in [{"embeddings": embeddings, "image_ids": image_ids, "landmark_ids": landmark_ids}[name]]
    }


def put(row, value):
    def change(array):
        array = array.copy()
        array[row] = value
        return array

    return change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": lambda e: e[0]}, r"must have the shape \[num_images, dim\], got \[6\]"),
        ({"embeddings": lambda e: e[:, :, np.newaxis]}, r"got \[20, 6, 1\]"),
        ({"embeddings": lambda e: e[:0]}, r"got \[0, 6\]"),
        ({"embeddings": lambda e: e[:, :0]}, r"got \[20, 0\]"),
        ({"embeddings": lambda e: e.astype(np.float64)}, r"must hold float16 or float32, got float64"),
        ({"embeddings": lambda e: e.astype(np.int32)}, r"got int32"),
        ({"embeddings": lambda e: e[:19]}, r"each of the 19 rows of embeddings, got \[20\] and \[20\]"),
        ({"image_ids": lambda i: i[1:]}, r"each of the 20 rows of embeddings, got \[19\] and \[20\]"),
        ({"landmark_ids": lambda i: i[1:]}, r"got \[20\] and \[19\]"),
        ({"image_ids": lambda i: i.astype(np.int64)}, r"image_ids must be uint64"),
        ({"landmark_ids": lambda i: i.astype(float)}, r"landmark_ids whole numbers, got uint64 and float64"),
        ({"landmark_ids": put(3, -1)}, r"1 of the 20 images have no landmark .landmark_id -1., the first in row 3"),
        ({"embeddings": put((7, 2), np.nan)}, r"row 7 .image [0-9a-f]{16}. holds NaN or infinity"),
        ({"embeddings": put((19, 0), np.inf)}, r"row 19 .image [0-9a-f]{16}. holds NaN or infinity"),
        ({"embeddings": put(4, 0)}, r"row 4 .image [0-9a-f]{16}. is all zeros"),
        ({"image_ids": put(slice(5, 8), 0xAB)}, r"row 6: image 00000000000000ab is there already, in row 5"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(EmbeddingsError, match=message):
        mine_triplets(**changed(**changes))


def test_one_landmark_is_not_enough():
    with pytest.raises(NoExampleError, match="all 20 images show the same landmark"):
        mine_triplets(**changed(landmark_ids=lambda i: i * 0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positive": "easy"}, "positive must be one of 'random', 'hardest', got 'easy'"),
        ({"negative": "random"}, "negative must be one of 'semi-hard', 'hardest'"),
        ({"search": "fast"}, "search must be one of 'auto', 'exact', 'approximate'"),
        ({"neighbours": 0}, "neighbours must be a whole number between 1 and 10000, got 0"),
        ({"neighbours": 1.5}, "neighbours must be a whole number"),
        ({"max_similarity": 1.01}, "between -1 and 1, got 1.01"),
        ({"max_similarity": float("nan")}, "between -1 and 1, got nan"),
        ({"margin": -0.1}, "margin must be a number between 0 and 4, got -0.1"),
        ({"margin": float("inf")}, "margin must be a number between 0 and 4, got inf"),
        ({"seed": True}, "seed must be a whole number between 0"),
        ({"seed": -1}, "seed must be a whole number between 0"),
        ({"seed": 2**64}, "seed must be a whole number between 0"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        MiningSpec(**fields)


def test_spec_is_recorded_whole():
    assert dataclasses.asdict(MiningSpec()).keys() == {
        "positive",
        "negative",
        "neighbours",
        "max_similarity",
        "margin",
        "seed",
        "search",
    }


# --- The file


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_file_has_a_row_for_each_triplet(tmp_path, suffix):
    mined = mine_triplets(*make_images(50))
    path = tmp_path / f"hard.{suffix}"
    path.write_bytes(b"an older file")
    write_triplets(mined, path)
    frame = (
        pd.read_csv(path, dtype=dict.fromkeys(TRIPLETS.id_features, str)) if suffix == "csv" else pd.read_parquet(path)
    )
    assert list(frame.columns) == [*TRIPLETS.id_features, "positive_similarity", "negative_similarity"]
    ids = [[f"{image_id:016x}" for image_id in triplet] for triplet in mined.image_ids.tolist()]
    assert frame[list(TRIPLETS.id_features)].to_numpy().tolist() == ids
    assert np.allclose(frame.iloc[:, 3:], mined.similarities, atol=1e-6)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_bytes_of_a_csv_are_pinned(monkeypatch, tmp_path):
    ids = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 2**64 - 1]], np.uint64)
    similarities = np.array([[1, -1], [0.12345678, -0.0], [1e-7, 0.5]], np.float32)
    mined = dataclasses.replace(mine_triplets(*make_images(50)), rows=ids, image_ids=ids, similarities=similarities)
    monkeypatch.setattr(hard_triplets, "_LINES_PER_WRITE", 2)
    write_triplets(mined, tmp_path / "hard.csv")
    assert (tmp_path / "hard.csv").read_text() == (
        "anchor_id,positive_id,negative_id,positive_similarity,negative_similarity\n"
        "0000000000000001,0000000000000002,0000000000000003,1.000000,-1.000000\n"
        "0000000000000004,0000000000000005,0000000000000006,0.123457,-0.000000\n"
        "0000000000000007,0000000000000008,ffffffffffffffff,0.000000,0.500000\n"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hard.txt", r"hard\.txt must end with \.csv or \.parquet"),
        ("folder.csv", "is a folder"),
        ("nowhere/hard.csv", "The folder .*nowhere does not exist"),
    ],
)
def test_where_no_file_can_be_written(tmp_path, name, message):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TripletsFileError, match=message):
        write_triplets(mine_triplets(*make_images(50)), tmp_path / name)
