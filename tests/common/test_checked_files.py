from __future__ import annotations

import pathlib
from typing import Any

from etils import epath
import numpy as np
import pytest

from landmark_triplets_tfds.common.checked_files import load_object, read_parts, save_object, write_parts
from landmark_triplets_tfds.errors import DamagedFileError

VALUES = [
    None,
    {"a": [1, "b"]},
    np.arange(12, dtype=np.int32).reshape(3, 4),
    [np.zeros(0, dtype=np.uint64), np.arange(300_000), np.arange(6)[::2], np.asfortranarray(np.eye(3))],
    np.zeros(5, dtype=[("id", "<u8"), ("kind", "u1")]),
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_objects_are_what_they_were(tmp_path: pathlib.Path, value: object) -> None:
    save_object(epath.Path(tmp_path / "x"), value)
    found = load_object(str(tmp_path / "x"))
    assert_same(found, value)


def assert_same(found: Any, value: Any) -> None:
    assert type(found) is type(value)
    if isinstance(value, list):
        for each, other in zip(found, value, strict=True):
            assert_same(each, other)
    elif isinstance(value, np.ndarray):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tobytes() == value.tobytes()
    else:
        assert found == value


@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize("parts", [[], [b""], [b"", b"a", b"b" * 100, b""], [bytes(range(256)) * 10_000, b"x"]])
def test_parts_are_what_they_were(tmp_path: pathlib.Path, parts: list[bytes], is_mapped: bool) -> None:
    with (tmp_path / "x").open("wb") as file:
        write_parts(file, parts)
    assert [bytes(part) for part in read_parts(str(tmp_path / "x"), is_mapped=is_mapped)] == parts


def test_a_file_that_is_not_as_it_was_written(tmp_path: pathlib.Path) -> None:
    """Whichever byte is another one, missing, or too many."""
    path = tmp_path / "x"
    save_object(epath.Path(path), np.arange(20))
    whole = path.read_bytes()
    changed = [whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :] for at in range(len(whole))]
    for content in [*changed, *(whole[:at] for at in range(len(whole))), whole + b"\0", whole * 2]:
        path.write_bytes(content)
        for is_mapped in (False, True):
            with pytest.raises(DamagedFileError, match=str(path)):
                read_parts(str(path), is_mapped=is_mapped)
