"""Makers: each image once, whatever the threads do, bounded work ahead, and errors that surface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
import errno
import functools
import pathlib
import threading
import time
from typing import Any

from etils import epath
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails import maker as maker_module
from landmark_triplets_tfds.thumbnails.bank import BankFile
from landmark_triplets_tfds.thumbnails.maker import ThumbnailMaker
from landmark_triplets_tfds.thumbnails.store import SpillStore
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from tests.support.helpers import encode_image, smooth_pixels, time_limit

SPEC = ThumbnailSpec(resolution=8, jpeg_quality=80)
BATCH_SIZE = 8  # images per task


@functools.cache
def picture(row: int) -> bytes:
    return encode_image(smooth_pixels(9 + row % 7, 12, row))


@functools.cache
def thumbnail(row: int) -> bytes:
    return make_thumbnail(picture(row), SPEC)


class FakeSource:
    """Gives pictures by row from memory and counts how often each is read; image ids are 1000 + row."""

    table_path = epath.Path("/nowhere/train.csv")
    is_remote = False

    def stamp(self, image_id: int) -> tuple[int, int]:
        raise AssertionError("only a store that lasts asks for stamps")

    def __init__(self, special: dict[int, bytes | Exception] | None = None):
        self.special = special or {}
        self.num_reads: Counter[int] = Counter()
        self._lock = threading.Lock()

    def read(self, image_id: int) -> bytes:
        row = image_id - 1000
        with self._lock:
            self.num_reads[row] += 1
        file = self.special.get(row)
        if isinstance(file, Exception):
            raise file
        return picture(row) if file is None else file


def start_maker(
    source: FakeSource,
    num_images: int,
    num_workers: int = 2,
    num_readers: int = 3,
    folder: str | None = None,
    **kwargs: Any,
) -> ThumbnailMaker:
    ids, store = np.arange(1000, 1000 + num_images, dtype=np.uint64), SpillStore(num_images, folder)
    return ThumbnailMaker(source, ids, SPEC, store, num_workers=num_workers, num_readers=num_readers, **kwargs)


def chunks(*rows: list[int]) -> Callable[[], Iterator[np.ndarray]]:
    return lambda: (np.array(chunk, dtype=np.int64) for chunk in rows)


def use_maker(source: FakeSource, announced: list[int], asked: list[int], **kwargs: Any) -> list[bytes | None]:
    """Starts a maker, gets thumbnails from it and ends it."""
    with start_maker(source, 100, **kwargs) as maker:
        maker.make_ahead(chunks(announced))
        return [maker.get(row) for row in asked]


@pytest.fixture(autouse=True)
def no_hangs() -> Iterator[None]:
    with time_limit(30):
        yield


rows_lists = st.lists(st.integers(0, 39), max_size=60)


# Without shrinking: what a race breaks once may hold the next time, and the search for a small example has no end.
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    announced=st.lists(rows_lists, max_size=4),
    asked=rows_lists,
    unreadable=st.sets(st.integers(0, 39)),
    num_workers=st.sampled_from([1, 2, 4]),
)
def test_each_image_is_read_once(
    announced: list[list[int]], asked: list[int], unreadable: set[int], num_workers: int
) -> None:
    source = FakeSource(dict.fromkeys(unreadable, b"<html>"))
    made: list[tuple[int, int]] = []
    with start_maker(source, 40, num_workers, 1, on_done=lambda *numbers: made.append(numbers)) as maker:
        maker.make_ahead(chunks(*announced))
        in_order_of_use = [row for chunk in announced for row in chunk]
        for row in asked + in_order_of_use + asked:
            assert maker.get(row) == (None if row in unreadable else thumbnail(row))
        used = set(asked + in_order_of_use)
        assert source.num_reads == dict.fromkeys(used, 1)
        assert set(maker.unreadable) == used & unreadable
        assert maker.num_done == maker.num_made == len(used)
    assert [total for _, total in made] == np.cumsum([new for new, _ in made]).tolist()
    assert (made[-1][1] if made else 0) == len(used)


@pytest.mark.parametrize("num_workers", [1, 2, 4])
@pytest.mark.parametrize("order", ["as announced", "backwards"])
def test_thumbnails_do_not_depend_on_the_number_of_threads(num_workers: int, order: str) -> None:
    rows = [row * 37 % 100 for row in range(100)]
    asked = rows if order == "as announced" else rows[::-1]
    thumbnails = use_maker(FakeSource(), rows, asked, num_workers=num_workers, num_readers=num_workers)
    assert thumbnails == [thumbnail(row) for row in asked]


def test_a_row_never_announced_is_made_when_asked_for() -> None:
    source = FakeSource({2: b""})
    with start_maker(source, 5) as maker:
        assert [maker.get(row) for row in (3, 2, 3, 2)] == [thumbnail(3), None, thumbnail(3), None]
        assert source.num_reads == {2: 1, 3: 1}
        maker.make_ahead(chunks([3, 2, 1]))
        assert maker.get(1) == thumbnail(1)
    assert source.num_reads == {1: 1, 2: 1, 3: 1}


def test_a_row_asked_for_before_its_turn_is_not_made_again() -> None:
    source = FakeSource()
    with start_maker(source, 200, num_workers=1, num_readers=1) as maker:
        maker.make_ahead(chunks(list(range(200)), list(range(200))))
        assert maker.get(199) == thumbnail(199)
        assert [maker.get(row) for row in range(200)] == [thumbnail(row) for row in range(200)]
    assert source.num_reads == dict.fromkeys(range(200), 1)


def test_a_row_whose_turn_comes_just_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # As many tasks as are in flight at once are ended or nearly so; the row asked for is the first of the next one.
    num_ahead = 3 * BATCH_SIZE
    encoded, first_task_has_ended = [], threading.Event()

    def encode(image_bytes: bytes, spec: ThumbnailSpec) -> bytes:
        encoded.append(None)
        if len(encoded) > BATCH_SIZE:
            first_task_has_ended.set()
        return make_thumbnail(image_bytes, spec)

    monkeypatch.setattr(maker_module, "make_thumbnail", encode)
    with start_maker(FakeSource(), 100, num_workers=1, num_readers=1) as maker:
        maker.make_ahead(chunks(list(range(100))))
        first_task_has_ended.wait()
        assert maker.get(num_ahead) == thumbnail(num_ahead)
        assert not maker.unreadable


@pytest.mark.parametrize(
    ("file", "reason", "detail"),
    [
        (
            UnreadableImageError(UnreadableImageError.MISSING, "train/x.jpg"),
            UnreadableImageError.MISSING,
            "train/x.jpg",
        ),
        (UnreadableImageError(UnreadableImageError.NO_ACCESS), UnreadableImageError.NO_ACCESS, ""),
        (b"", UnreadableImageError.EMPTY, ""),
        (b"<html>", UnreadableImageError.NOT_AN_IMAGE, "HTML page"),
        (picture(1)[:-20], UnreadableImageError.DAMAGED, "the end of the JPEG is missing"),
    ],
    ids=["missing", "no access", "empty", "HTML", "cut"],
)
@pytest.mark.parametrize("announced", [True, False])
def test_unreadable_images_are_kept_with_their_reasons(
    file: bytes | Exception, reason: str, detail: str, announced: bool
) -> None:
    with start_maker(FakeSource({1: file}), 3) as maker:
        maker.make_ahead(chunks([0, 1, 2] if announced else []))
        assert [maker.get(row) for row in range(3)] == [thumbnail(0), None, thumbnail(2)]
        (error,) = maker.unreadable.values()
        assert list(maker.unreadable) == [1]
        assert (error.reason, error.detail) == (reason, detail)
        assert error.__traceback__ is None  # it would keep the image's bytes in memory


@pytest.mark.parametrize(("num_workers", "num_readers"), [(1, 1), (2, 3)])
def test_the_work_ahead_is_bounded(num_workers: int, num_readers: int) -> None:
    num_images = 400
    ahead = (num_readers + 2 * num_workers) * BATCH_SIZE
    taken: list[int] = []

    def rows() -> Iterator[np.ndarray]:
        for row in range(num_images):
            taken.append(row)
            yield np.array([row])

    source = FakeSource()
    with start_maker(source, num_images, num_workers, num_readers) as maker:
        maker.make_ahead(rows)
        for row in range(num_images):
            assert maker.get(row) == thumbnail(row)
            assert sum(source.num_reads.values()) <= maker.num_done + ahead
            assert len(taken) <= maker.num_done + ahead
    assert taken == list(range(num_images))


@pytest.mark.parametrize("num_workers", [1, 4])
def test_leaving_early_stops_the_work(num_workers: int) -> None:
    source = FakeSource()
    threads = threading.active_count()
    with start_maker(source, 1000, num_workers, 2) as maker:
        maker.make_ahead(chunks(list(range(1000))))
        maker.get(0)
    assert sum(source.num_reads.values()) < 1000
    assert threading.active_count() == threads


@pytest.mark.parametrize("announced", [[3], list(range(100)), []], ids=["one", "many", "none"])
@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError(), ValueError("another")], ids=repr)
def test_an_unexpected_error_surfaces(announced: list[int], error: Exception) -> None:
    threads = threading.active_count()
    with pytest.raises(type(error)) as caught:
        use_maker(FakeSource({3: error}), announced, list(range(100)))
    assert caught.value is error
    assert threading.active_count() == threads


def test_an_error_of_the_encoder_surfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image_bytes: bytes, spec: ThumbnailSpec) -> bytes:
        raise RuntimeError("a bug")

    monkeypatch.setattr(maker_module, "make_thumbnail", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        use_maker(FakeSource(), [0, 1, 2], [1])


def test_an_error_of_the_plan_surfaces() -> None:
    def rows() -> Iterator[np.ndarray]:
        yield np.array([0])
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"), start_maker(FakeSource(), 3) as maker:
        maker.make_ahead(rows)


def test_an_error_of_the_listener_surfaces() -> None:
    def stop(num_new: int, num_made: int) -> None:
        raise RuntimeError("too many unreadable")

    with pytest.raises(RuntimeError, match="too many"):
        use_maker(FakeSource(), list(range(30)), [29], on_done=stop)


def test_asking_again_after_an_error_does_not_hang() -> None:
    with start_maker(FakeSource({3: RuntimeError("a bug")}), 10) as maker:
        maker.make_ahead(chunks(list(range(10))))
        for _ in range(2):
            with pytest.raises(RuntimeError, match="a bug"), time_limit(3):
                maker.get(3)


def test_an_error_of_the_store_surfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: SpillStore, row: int, stamp: Any, result: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SpillStore, "put", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        use_maker(FakeSource(), list(range(50)), list(range(50)))
    assert caught.value.errno == errno.ENOSPC


def test_waiting_for_all_makes_also_what_nobody_asked_for() -> None:
    source = FakeSource({5: b"", 190: b"<html>"})
    with start_maker(source, 200) as maker:
        maker.make_ahead(chunks(list(range(200))))
        assert maker.get(0) == thumbnail(0)
        maker.wait_for_all()
        assert maker.num_images() == 200
        assert set(maker.unreadable) == {5, 190}
    assert source.num_reads == Counter(range(200))


class TimedSource(FakeSource):
    """Takes its time for each read, and notes the threads that read and how many did at once."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds
        self.num_at_once = 0
        self.most_at_once = 0
        self.threads: list[str] = []

    def read(self, image_id: int) -> bytes:
        with self._lock:
            self.num_at_once += 1
            self.most_at_once = max(self.most_at_once, self.num_at_once)
            self.threads.append(threading.current_thread().name)
        time.sleep(self.seconds)
        with self._lock:
            self.num_at_once -= 1
        return super().read(image_id)


def test_slow_files_are_read_by_more_threads_than_encode() -> None:
    source = TimedSource(0.005)
    with start_maker(source, 200, num_workers=1, num_readers=12) as maker:
        maker.make_ahead(chunks(list(range(200))))
        maker.wait_for_all()
    assert source.most_at_once > 6
    assert all(name.startswith("read") for name in source.threads)


def test_fast_files_are_soon_read_by_the_workers_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker_module, "_SLOW_READ_S", 0.5)  # so that a busy machine does not seem slow
    source = TimedSource(0.0)
    with start_maker(source, 2000, num_workers=2, num_readers=3) as maker:
        maker.make_ahead(chunks(list(range(2000))))
        maker.wait_for_all()
    assert source.threads[0].startswith("read")
    assert source.threads[-1].startswith("encode")


# --- What the store knows from earlier builds


class StampedSource(FakeSource):
    """A source whose files have stamps, 1 unless said otherwise; looking at one can take a while."""

    def __init__(self, stamp_s: float = 0.0):
        super().__init__()
        self.stamps: dict[int, int] = {}
        self.stamp_s = stamp_s
        self.stamping_threads: set[str] = set()

    def stamp(self, image_id: int) -> tuple[int, int]:
        self.stamping_threads.add(threading.current_thread().name.split("_")[0])
        time.sleep(self.stamp_s)
        return self.stamps.get(image_id - 1000, 1), 1


def build_with_bank(source: FakeSource, folder: pathlib.Path, rows: list[int]) -> tuple[list[bytes | None], int]:
    """Gets thumbnails from a bank that lasts; returns them and how many of them were made."""
    ids = np.arange(1000, 1000 + len(rows), dtype=np.uint64)
    store = BankFile(folder / "bank.sqlite", ids)
    with ThumbnailMaker(source, ids, SPEC, store, num_workers=2, num_readers=3) as maker:
        maker.make_ahead(chunks(rows))
        maker.expect(np.array(rows))
        return [maker.get(row) for row in rows], maker.num_made


@pytest.mark.parametrize(("stamp_s", "expected_thread"), [(0.0, "MainThread"), (0.001, "read")])
def test_only_files_that_changed_are_read_again(tmp_path: pathlib.Path, stamp_s: float, expected_thread: str) -> None:
    rows, changed = list(range(300)), {3, 64, 65, 299}
    wanted = [thumbnail(row) for row in rows]
    assert build_with_bank(StampedSource(), tmp_path, rows) == (wanted, 300)
    source = StampedSource(stamp_s)
    source.stamps = dict.fromkeys(changed, 2)
    assert build_with_bank(source, tmp_path, rows) == (wanted, len(changed))
    assert set(source.num_reads) == changed
    assert expected_thread in source.stamping_threads
    source.num_reads.clear()
    assert build_with_bank(source, tmp_path, rows) == (wanted, 0)
    assert not source.num_reads


def test_files_with_equal_stamps_are_not_waited_for_by_other_threads(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maker_module, "_SLOW_STAMP_S", 0.5)  # so that a busy machine does not seem slow
    build_with_bank(StampedSource(), tmp_path, list(range(100)))
    source = StampedSource()
    build_with_bank(source, tmp_path, list(range(100)))
    assert source.stamping_threads == {"MainThread"}


def test_an_error_while_looking_at_files_surfaces_and_does_not_hang(tmp_path: pathlib.Path) -> None:
    build_with_bank(StampedSource(), tmp_path, list(range(100)))
    source = StampedSource()

    def fail(image_id: int) -> tuple[int, int]:
        raise RuntimeError("a bug")

    source.stamp = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a bug"), time_limit(5):
        build_with_bank(source, tmp_path, list(range(100)))
