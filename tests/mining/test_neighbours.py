"""The search by faiss: what it finds beside the exact one, and how far it looks."""

import sys

import numpy as np
import pytest

from landmark_triplets_tfds.errors import MissingPackageError
from landmark_triplets_tfds.mining import hard_triplets
from landmark_triplets_tfds.mining.embeddings import arrange
from landmark_triplets_tfds.mining.hard_triplets import MiningSpec, mine_triplets
from landmark_triplets_tfds.mining.neighbours import ApproximateSearch, ExactSearch

try:
    import faiss
except ImportError:
    faiss = None

needs_faiss = pytest.mark.skipif(faiss is None, reason="faiss is not installed: pip install '.[mining]'")


def make_images(count, num_landmarks, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    landmark_ids = rng.integers(0, num_landmarks, count)
    embeddings = rng.normal(size=(num_landmarks, dim))[landmark_ids] + 0.4 * rng.normal(size=(count, dim))
    return embeddings.astype(np.float32), np.arange(count, dtype=np.uint64), landmark_ids


@needs_faiss
@pytest.mark.parametrize("max_similarity", [1.0, 0.5])
def test_with_all_lists_it_is_exact(max_similarity):
    images = arrange(*make_images(3000, 50))
    exact = ExactSearch(images, max_similarity).search(100, 400, 20)
    found = ApproximateSearch(images, max_similarity, num_probes=10**6).search(100, 400, 20)
    assert found.places.tolist() == exact.places.tolist()
    assert found.similarities.tolist() == exact.similarities.tolist()


@needs_faiss
def test_with_few_lists_it_finds_most():
    images = arrange(*make_images(6000, 300))
    exact = ExactSearch(images, 1.0).search(0, 1000, 10)
    found = ApproximateSearch(images, 1.0, num_probes=16).search(0, 1000, 10)
    hits = (exact.places[:, :, np.newaxis] == found.places[:, np.newaxis]).any(axis=2)
    assert 0.8 < hits.mean() <= 1
    assert (found.places >= 0).all()
    assert (np.diff(found.similarities, axis=1) <= 0).all()


@needs_faiss
def test_it_looks_further_where_the_own_landmark_fills_the_nearest():
    embeddings, image_ids, landmark_ids = make_images(4000, 100)
    landmark_ids[:] = np.where(landmark_ids < 50, 0, landmark_ids)
    embeddings[landmark_ids == 0] = [1.0] + [0.0] * 15
    embeddings[landmark_ids == 0] += 0.01 * np.random.default_rng(1).normal(size=((landmark_ids == 0).sum(), 16))
    images = arrange(embeddings, image_ids, landmark_ids)
    assert images.stops[0] > 1500
    exact = ExactSearch(images, 0.99).search(0, 200, 5)
    found = ApproximateSearch(images, 0.99, num_probes=1).search(0, 200, 5)
    assert (found.places >= images.stops[0]).all()
    assert (exact.places[:, :, np.newaxis] == found.places[:, np.newaxis]).any(axis=2).mean() > 0.5


@needs_faiss
def test_it_looks_further_where_near_duplicates_fill_the_nearest():
    embeddings, image_ids, landmark_ids = make_images(3000, 30)
    embeddings[: 30 * 20] = np.repeat(embeddings[:30], 20, axis=0)  # 20 times the same picture, under other numbers
    images = arrange(embeddings, image_ids, np.random.default_rng(0).permutation(landmark_ids))
    exact = ExactSearch(images, 0.999).search(0, 300, 5)
    found = ApproximateSearch(images, 0.999, num_probes=10**6).search(0, 300, 5)
    # Not the places: of many that are equally similar, faiss returns any.
    assert found.similarities.tolist() == exact.similarities.tolist()
    assert found.num_above.tolist() == exact.num_above.tolist()


@needs_faiss
def test_it_gives_up_where_everything_is_a_near_duplicate():
    images = arrange(np.ones((3000, 4), np.float32), np.arange(3000, dtype=np.uint64), np.arange(3000) // 10)
    found = ApproximateSearch(images, 0.9).search(0, 50, 5)
    assert (found.places == -1).all()
    assert (found.num_above >= 1000).all()


@needs_faiss
def test_triplets_are_reproducible_and_a_few_images_are_enough(monkeypatch):
    for count in (4, 2000):
        images = make_images(count, 2 if count == 4 else 100)
        images[2][:2] = 0, 1
        first, second = (mine_triplets(*images, MiningSpec(search="approximate")) for _ in range(2))
        assert first.search == "approximate"
        assert first.rows.tolist() == second.rows.tolist()
    monkeypatch.setattr(hard_triplets, "MAX_IMAGES_EXACT", 1999)
    assert mine_triplets(*images).rows.tolist() == first.rows.tolist()


def test_without_faiss_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"pip install faiss-cpu`, or ask for the exact search"):
        mine_triplets(*make_images(100, 5), MiningSpec(search="approximate"))
    assert len(mine_triplets(*make_images(100, 5))) > 90
