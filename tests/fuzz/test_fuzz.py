"""Damaged files through the code of a build: a short run of `tests.fuzz.fuzz`, and what its long runs have found."""

from __future__ import annotations

import io
import sys
import zipfile

from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from landmark_triplets_tfds.competition.layout import image_path
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import MAX_SCANNED_PIXELS, ThumbnailSpec, make_thumbnail
from tests.support.archives import make_tar
from tests.support.competition import REPOSITORY, run
from tests.support.helpers import encode_image, smooth_pixels, time_limit


@pytest.mark.slow
def test_nothing_goes_wrong() -> None:
    """The first cases of the long run, in processes that are watched for crashes, hangs and memory."""
    result = run(sys.executable, "-m", "tests.fuzz.fuzz", "--count", 60, cwd=REPOSITORY, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    for kind in ("image", "table", "zip", "tar", "index", "special"):
        assert f"{kind}: 60 cases" in result.stdout


# --- Found


@pytest.mark.parametrize("resize_method", ["nearest", "area"])
def test_a_progressive_jpeg_of_thousands_of_scans(resize_method: str) -> None:
    """A scan may be ten bytes long, and the decoder goes over all pixels for it: minutes from a small file."""
    data = encode_image(smooth_pixels(1000, 1000), progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    spec = ThumbnailSpec(resolution=8, resize_method=resize_method)
    num_scans = MAX_SCANNED_PIXELS // 1000**2
    assert make_thumbnail(data, spec)
    bomb = data[:-2] + last_scan * num_scans + b"\xff\xd9"
    with time_limit(5), pytest.raises(UnreadableImageError, match=r"too many pixels: 1\.00 megapixels in 1,0.. scans"):
        make_thumbnail(bomb, spec)


@pytest.mark.parametrize("resize_method", ["nearest", "area"])
def test_a_sequential_jpeg_of_thousands_of_scans(resize_method: str) -> None:
    """Its scans are of single components; libjpeg counts them no more than in a progressive one."""
    data = encode_image(smooth_pixels(1000, 1000), subsampling=0)
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\0" * 10
    bomb = data[: data.index(b"\xff\xda")] + scan * 1001 + data[data.index(b"\xff\xda") :]
    with time_limit(5), pytest.raises(UnreadableImageError, match=r"too many pixels: 1\.00 megapixels in 1,002 scans"):
        make_thumbnail(bomb, ThumbnailSpec(resolution=8, resize_method=resize_method))


# --- Archives made of any names


_IDS = st.integers(1, 2**64 - 1)
_NAMES = st.one_of(
    _IDS.map(lambda image_id: image_path(image_id)),
    _IDS.map(lambda image_id: f"../{image_path(image_id)}"),
    _IDS.map(lambda image_id: f"/etc/{format_image_id(image_id)}.jpg"),
    st.text(st.characters(categories=["L", "N", "P"], exclude_characters="\\"), min_size=1, max_size=20),
)
_MEMBERS = st.lists(st.tuples(_NAMES, st.binary(max_size=40)), max_size=8, unique_by=lambda member: member[0])


@settings(max_examples=40, deadline=None)
@given(members=_MEMBERS)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_exactly_the_members_of_the_layout_are_images(
    tmp_path_factory: pytest.TempPathFactory, kind: str, members: list[tuple[str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    members = [("0/0/0/0000000000000000.jpg", b"an image"), *members]
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("train.csv", "id,landmark_id\n")
            for name, content in members:
                archive.writestr(f"train/{name}", content)
        (folder / "only.zip").write_bytes(buffer.getvalue())
    else:
        (folder / "train").mkdir()
        (folder / "train.csv").touch()
        (folder / "train" / "images_000.tar").write_bytes(make_tar(members))
    source = find_source(epath.Path(folder), str(folder / "bank"))
    content_of = dict(members)
    for name, content in members:
        digits = name[-20:-4]
        image_id = int(digits, 16) if len(digits) == 16 and all(d in "0123456789abcdef" for d in digits) else None
        if image_id is None:
            continue
        expected = content_of.get(image_path(image_id))
        if expected is None:
            assert not source.exists(image_id)
        else:
            assert source.read(image_id) == expected
        assert name != image_path(image_id) or source.read(image_id) == content
