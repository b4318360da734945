from __future__ import annotations

import hashlib
import pathlib

from etils import epath
import pytest

from landmark_triplets_tfds.competition.md5_lists import md5_of, read_md5_lists

HASH = "0123456789abcdef" * 2


@pytest.mark.parametrize("where", ["train", ".", "md5sum/train"])
@pytest.mark.parametrize("name", ["md5.images_000.txt", "images.md5", "MD5SUMS", "md5sum.txt"])
def test_lists_are_found(tmp_path: pathlib.Path, where: str, name: str) -> None:
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    (tmp_path / where / name).write_text(f"{HASH.upper()} *images_000.tar\n")
    assert read_md5_lists(epath.Path(tmp_path)) == {"images_000.tar": HASH}


def test_md5_of(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 3_000_000)
    assert md5_of(str(tmp_path / "x")) == hashlib.md5(b"x" * 3_000_000).hexdigest()
