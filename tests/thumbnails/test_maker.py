"""Makers: each image once, by processes or here, with what the store knows, and errors that surface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import functools
import os
from pathlib import Path
import signal
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from landmark_triplets_tfds.common import worker_pool
from landmark_triplets_tfds.common.worker_pool import WorkerPool
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails import maker as maker_module
from landmark_triplets_tfds.thumbnails import store as store_module
from landmark_triplets_tfds.thumbnails.maker import ThumbnailMaker
from landmark_triplets_tfds.thumbnails.store import StoreIndex, StoreReader, StoreWriteError
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from tests.support.helpers import encode_image, smooth_pixels

SPEC = ThumbnailSpec(resolution=8, jpeg_quality=80)


@functools.cache
def picture(row: int) -> bytes:
    return encode_image(smooth_pixels(9 + row % 7, 12, row))


@functools.cache
def thumbnail(row: int) -> bytes:
    return make_thumbnail(picture(row), SPEC)


@dataclasses.dataclass
class FakeSource(ImageSource):
    """Gives pictures by row, which image ids are with 1000 added, and notes each read in a folder.

    Attributes:
      special: files that are other bytes, or an error.
      stamps: of files that have another stamp than (1, 1).
      killers: rows whose reading kills the process.
      seconds: that a read takes.
      num_slow: rows of which a read takes so long; None: all.
    """

    folder: Path
    special: dict[int, bytes | Exception] = dataclasses.field(default_factory=dict)
    stamps: dict[int, int] = dataclasses.field(default_factory=dict)
    killers: set[int] = dataclasses.field(default_factory=set)
    seconds: float = 0.0
    num_slow: int | None = None

    def share(self, folder: object) -> FakeSource:
        return self

    def read_order(self, image_ids: np.ndarray) -> np.ndarray:
        return np.argsort(image_ids)

    def stamp(self, image_id: int) -> tuple[int, int]:
        return self.stamps.get(image_id - 1000, 1), 1

    def read(self, image_id: int) -> bytes:
        row = image_id - 1000
        with (self.folder / f"reads-{os.getpid()}-{threading.get_ident()}").open("a") as file:
            file.write(f"{row}\n")
        if row in self.killers:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.num_slow is None or row < self.num_slow:
            time.sleep(self.seconds)
        content = self.special.get(row)
        if isinstance(content, Exception):
            raise content
        return picture(row) if content is None else content

    def reads(self) -> Counter[int]:
        """How often each row was read since the last call."""
        counts: Counter[int] = Counter()
        for path in self.folder.glob("reads-*"):
            counts.update(map(int, path.read_text().split()))
            path.unlink()
        return counts


@contextlib.contextmanager
def open_maker(
    tmp_path: Path,
    source: FakeSource,
    num_images: int = 300,
    num_workers: int = 1,
    num_readers: int = 1,
    spare: Path | None = None,
) -> Iterator[ThumbnailMaker]:
    ids = np.arange(1000, 1000 + num_images, dtype=np.uint64)
    index, folder = StoreIndex.read(tmp_path / "store", ids), tmp_path / f"folder-{time.monotonic_ns()}"
    folder.mkdir()
    with (
        WorkerPool(num_workers) as pool,
        ThumbnailMaker(source, ids, SPEC, index, spare, folder, pool, num_readers, lambda count: None) as maker,
    ):
        yield maker


def thumbnails(maker: ThumbnailMaker, rows: list[int]) -> list[bytes | None]:
    """What is at the places of the readable ones."""
    reader = StoreReader(maker.index.files)
    return [reader.read(maker.index.places[row].item()) if maker.is_readable[row] else None for row in rows]


@pytest.fixture
def source(tmp_path: Path) -> FakeSource:
    (tmp_path / "reads").mkdir()
    return FakeSource(tmp_path / "reads")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets few images be worth processes of their own."""
    monkeypatch.setattr(worker_pool, "_WORTH_S", 0.0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_each_image_is_made_once(tmp_path: Path, source: FakeSource, num_workers: int) -> None:
    source.special = dict.fromkeys([3, 77, 200], b"<html>")
    rows = [row * 37 % 300 for row in range(250)]
    with open_maker(tmp_path, source, num_workers=num_workers) as maker:
        maker.make(np.array(rows[:130]))
        maker.make(np.array(rows))
        assert thumbnails(maker, rows) == [None if row in source.special else thumbnail(row) for row in rows]
        assert source.reads() == Counter(rows)
        assert sorted(maker.unreadable) == sorted(set(source.special) & set(rows))
        assert sorted(np.flatnonzero(maker.is_done)) == sorted(rows)
        assert maker.num_made == 250


@settings(max_examples=25, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, 39), unique=True, max_size=40), max_size=4),
    unreadable=st.sets(st.integers(0, 39)),
)
def test_in_whatever_parts(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], unreadable: set[int]
) -> None:
    tmp_path = tmp_path_factory.mktemp("maker")
    (tmp_path / "reads").mkdir()
    source = FakeSource(tmp_path / "reads", dict.fromkeys(unreadable, b""))
    used = {row for part in parts for row in part}
    with open_maker(tmp_path, source, 40) as maker:
        for part in parts:
            maker.make(np.array(part, dtype=np.int64))
        expected = [None if row in unreadable else thumbnail(row) for row in sorted(used)]
        assert thumbnails(maker, sorted(used)) == expected
    assert source.reads() == dict.fromkeys(used, 1)


def test_images_are_read_in_the_order_of_their_files(tmp_path: Path, source: FakeSource) -> None:
    with open_maker(tmp_path, source) as maker:
        maker.make(np.array([5, 3, 9, 1]))
    (path,) = source.folder.iterdir()
    assert path.read_text().split() == ["1", "3", "5", "9"]


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
def test_unreadable_images_are_kept_with_their_reasons(
    tmp_path: Path, source: FakeSource, file: bytes | Exception, reason: str, detail: str
) -> None:
    source.special = {1: file}
    for made_again in (True, isinstance(file, Exception)):  # what could not be read may be fetched again
        with open_maker(tmp_path, source, 3) as maker:
            maker.make(np.arange(3))
            assert thumbnails(maker, [0, 1, 2]) == [thumbnail(0), None, thumbnail(2)]
            (error,) = maker.unreadable.values()
            assert list(maker.unreadable) == [1]
            assert (error.reason, error.detail) == (reason, detail)
        assert (1 in source.reads()) == made_again


def test_only_files_that_changed_are_read_again(tmp_path: Path, source: FakeSource) -> None:
    rows, changed = list(range(300)), {3, 64, 65, 299}
    for stamps, expected in (({}, set(rows)), (dict.fromkeys(changed, 2), changed), (dict.fromkeys(changed, 2), set())):
        source.stamps = stamps
        with open_maker(tmp_path, source) as maker:
            maker.make(np.array(rows))
            assert thumbnails(maker, rows) == [thumbnail(row) for row in rows]
            assert maker.num_made == len(expected)
        assert set(source.reads()) == expected


def test_what_another_table_has_is_used_too(tmp_path: Path, source: FakeSource) -> None:
    with open_maker(tmp_path, source, 10) as maker:
        maker.make(np.arange(10))
    with open_maker(tmp_path, source, 300) as maker:
        assert np.count_nonzero(maker.index.places["kind"][:20]) == 10
        maker.make(np.arange(20))
        assert maker.num_made == 10


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError("none"), ValueError("another")], ids=repr)
def test_an_unexpected_error_surfaces(tmp_path: Path, source: FakeSource, num_workers: int, error: Exception) -> None:
    source.special = {3: error}
    with open_maker(tmp_path, source, 100, num_workers) as maker, pytest.raises(type(error), match=str(error)):
        maker.make(np.arange(100))


def test_a_store_that_cannot_be_written_is_told_apart(
    tmp_path: Path, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: object, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "_write_all", fail)
    with open_maker(tmp_path, source) as maker, pytest.raises(StoreWriteError, match="No space left") as caught:
        maker.make(np.arange(5))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("num_workers", [1, 2])
def test_another_store_takes_the_place_of_one_that_cannot_be_written(
    tmp_path: Path, source: FakeSource, num_workers: int
) -> None:
    with open_maker(tmp_path, source, num_workers=num_workers, spare=tmp_path / "spare") as maker:
        (tmp_path / "store").touch()
        maker.make(np.arange(300))
        assert thumbnails(maker, list(range(300))) == [thumbnail(row) for row in range(300)]
        assert maker.trouble.startswith(f"{tmp_path / 'store'} ([Errno 17] File exists")
        assert source.reads() == Counter(range(300))


@pytest.mark.parametrize("path", ["caf\udce9.jpg", "\ud800.jpg", "\u2588.jpg"])
def test_reasons_may_name_paths_that_are_not_utf_8(tmp_path: Path, source: FakeSource, path: str) -> None:
    source.special = {3: UnreadableImageError(UnreadableImageError.MISSING, path)}
    with open_maker(tmp_path, source, 5) as maker:
        maker.make(np.arange(5))
        assert maker.unreadable[3].detail == path


@pytest.mark.usefixtures("at_once")
def test_an_image_that_kills_workers_is_unreadable(tmp_path: Path, source: FakeSource) -> None:
    source.killers = {41, 150}
    with open_maker(tmp_path, source, 200, num_workers=2) as maker:
        maker.make(np.arange(200))
        assert sorted(maker.unreadable) == [41, 150]
        assert {error.detail for error in maker.unreadable.values()} == {"the process that decodes it dies"}
        rows = [row for row in range(200) if row not in source.killers]
        assert thumbnails(maker, rows) == [thumbnail(row) for row in rows]


def test_slow_files_are_read_ahead_by_threads(tmp_path: Path, source: FakeSource) -> None:
    source.seconds = 0.01
    started = time.monotonic()
    with open_maker(tmp_path, source, 300, num_readers=16) as maker:
        maker.make(np.arange(300))
    assert len(list(source.folder.iterdir())) > 4  # threads that have read
    assert time.monotonic() - started < 300 * source.seconds


def test_threads_read_no_further_ahead_once_files_are_quick(
    tmp_path: Path, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maker_module, "_SLOW_READ_S", 0.01)  # to draw a picture takes a part of it
    source.seconds, source.num_slow = 0.05, 100
    with open_maker(tmp_path, source, 400, num_readers=16) as maker:
        maker.make(np.arange(400))
    by_threads = [path.read_text().split() for path in source.folder.iterdir()]
    assert len(by_threads) > 4
    assert [rows[-1] for rows in by_threads].count("399") == 1
    assert max(by_threads, key=len)[-50:] == [str(row) for row in range(350, 400)]
