"""The store of one build: what is put is got, from memory or from its file, which has no name."""

from __future__ import annotations

from collections.abc import Callable
import errno
import io
import pathlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails import store as store_module
from landmark_triplets_tfds.thumbnails.store import RecentThumbnails, SpillStore


class PartialFile(io.BytesIO):
    """A file that takes at most 10 bytes at a time, as unbuffered files may."""

    def __init__(self, capacity: int | None = None):
        super().__init__()
        self.capacity = capacity

    def write(self, data: Any) -> int:
        if self.capacity is not None and self.tell() + len(data) > self.capacity:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data[:10])


@settings(max_examples=50, deadline=None)
@given(texts=st.dictionaries(st.integers(0, 9), st.binary(max_size=45), max_size=10), data=st.data())
@pytest.mark.parametrize("make_file", [None, PartialFile])
def test_what_is_put_is_got(make_file: Callable[[], io.BytesIO] | None, texts: dict[int, bytes], data: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if make_file:
            patch.setattr(store_module.tempfile, "TemporaryFile", lambda **kwargs: make_file())
        store = SpillStore(10, None)
    for row, text in texts.items():
        store.put(row, (0, 0), text)
        assert store.get(row) == text
    for row in data.draw(st.permutations(list(texts))):
        assert store.get(row) == texts[row]
    store.close()


def test_the_file_is_in_its_folder_and_gone_afterwards(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, folders = store_module.tempfile.TemporaryFile, []

    def record(**kwargs: Any) -> Any:
        folders.append(kwargs["dir"])
        return make(**kwargs)

    monkeypatch.setattr(store_module.tempfile, "TemporaryFile", record)
    store = SpillStore(3, str(tmp_path))
    store.put(2, (0, 0), b"thumbnail")
    assert list(tmp_path.iterdir()) == []  # it has no name, so that it goes with the process however that ends
    store.close()
    assert folders == [str(tmp_path)]


def test_a_full_disk_surfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module.tempfile, "TemporaryFile", lambda **kwargs: PartialFile(capacity=2000))
    store = SpillStore(2, None)
    store.put(0, (0, 0), bytes(1500))
    with pytest.raises(OSError, match="No space left") as caught:
        store.put(1, (0, 0), bytes(600))
    assert caught.value.errno == errno.ENOSPC


def test_an_unreadable_image_takes_no_room() -> None:
    store = SpillStore(2, None)
    store.put(1, (0, 0), UnreadableImageError(UnreadableImageError.EMPTY))
    store.put(0, (0, 0), b"thumbnail")
    assert store.get(0) == b"thumbnail"
    assert store._end == len(b"thumbnail")
    store.close()


def test_the_file_gives_what_memory_holds_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_MAX_RECENT_BYTES", 250)
    recent, store = RecentThumbnails(), SpillStore(10, None)
    for row in range(10):
        recent.add(row, bytes([row]) * 100)
        store.put(row, (0, 0), bytes([row]) * 100)
    assert [row for row in range(10) if recent.get(row)] == [8, 9]
    assert [store.get(row) for row in range(10)] == [bytes([row]) * 100 for row in range(10)]
    store.close()
