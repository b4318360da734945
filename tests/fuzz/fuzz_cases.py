"""One damaged file, made from a seed, through the code of a build: `tests.fuzz.fuzz` runs thousands of them.

A case ends in one of the ways in which a build may end, or says what is wrong. Images go through `make_thumbnail`;
tables are read and triplets drawn from them; archives are found in a folder and indexed, their table is read, and each
image is read and made into a thumbnail.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import io
from pathlib import Path
import random
import shutil
import tarfile
import zipfile

from etils import epath
import numpy as np
from PIL import Image

from landmark_triplets_tfds.competition.layout import IMAGES_NAME, TABLE_NAME, ZIP_NAME, image_path
from landmark_triplets_tfds.competition.source import find_source
from landmark_triplets_tfds.competition.tables import format_image_id, parse_landmark_table
from landmark_triplets_tfds.errors import ArchiveError, LandmarkTableError, NoExampleError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler
from tests.fuzz import mutations

WRONG = "WRONG"

_SPECS = (
    ThumbnailSpec(resolution=32),
    ThumbnailSpec(resolution=32, resize_method="area", fit="crop"),
    ThumbnailSpec(resolution=48, fit="pad"),
)
_NUM_IMAGES = 6


class WrongError(Exception):
    """A case that did not end in one of the ways in which a build may end."""


@functools.cache
def base_images() -> list[bytes]:
    """Returns whole images of many kinds, 40 to 250 px, of about 2 to 30 kB."""
    rng = np.random.default_rng(0)
    images = []
    for height, width in ((40, 60), (250, 200)):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((width, height))
        pixels = np.asarray(coarse, dtype=np.int16) + rng.integers(-4, 5, (height, width, 1))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        images += [_encode(picture, "JPEG", subsampling=subsampling) for subsampling in (0, 1, 2)]
        images += [
            _encode(picture, "JPEG", progressive=True),
            _encode(picture, "JPEG", restart_marker_blocks=3),
            _encode(picture.convert("L"), "JPEG"),
            _encode(picture.convert("L"), "JPEG", progressive=True),
            _encode(picture.convert("CMYK"), "JPEG"),
            _encode(picture, "PNG"),
            _encode(picture.convert("L"), "PNG"),
            _encode(picture.quantize(16), "PNG"),
            _encode(Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 257), "PNG"),
        ]
    return images


def _encode(picture: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def run_image(rng: random.Random, folder: Path) -> str:
    """Makes the thumbnail of a damaged image."""
    data = _mutate(rng.choice(base_images()), rng, _mutate_image)
    spec = rng.choice(_SPECS)
    try:
        thumbnail = make_thumbnail(data, spec)
    except UnreadableImageError as error:
        return f"unreadable: {error.reason}"
    _check_thumbnail(thumbnail, spec)
    return "read"


def _mutate_image(data: bytes, rng: random.Random) -> bytes:
    return (mutations.mutate_jpeg if data.startswith(b"\xff\xd8") else mutations.mutate_png)(data, rng)


def _check_thumbnail(thumbnail: bytes, spec: ThumbnailSpec) -> None:
    with Image.open(io.BytesIO(thumbnail)) as image:
        image.load()
        if image.size != (spec.resolution, spec.resolution) or image.mode not in ("RGB", "L"):
            raise WrongError(f"the thumbnail is {image.size} {image.mode}")


@functools.cache
def _ids() -> list[int]:
    return [random.Random(number).getrandbits(64) for number in range(_NUM_IMAGES)]


@functools.cache
def _images() -> list[bytes]:
    return base_images()[:_NUM_IMAGES]


@functools.cache
def _tables() -> list[bytes]:
    """Returns the same table as train.csv, with URLs, and as train_clean.csv."""
    rows = [(format_image_id(image_id), number // 2 + 5) for number, image_id in enumerate(_ids())]
    plain = "id,landmark_id\n" + "".join(f"{name},{landmark}\n" for name, landmark in rows)
    urls = "id,url,landmark_id\n" + "".join(f'{name},"http://x/a,{name}.jpg",{landmark}\n' for name, landmark in rows)
    clean = "landmark_id,images\n" + "".join(f"{rows[n][1]},{rows[n][0]} {rows[n + 1][0]}\n" for n in (0, 2, 4))
    return [plain.encode(), urls.encode(), clean.encode()]


def run_table(rng: random.Random, folder: Path) -> str:
    """Reads a damaged table and draws triplets from it."""
    data = _mutate(rng.choice(_tables()), rng, mutations.mutate_table)
    try:
        table = parse_landmark_table(data, "train.csv")
        plan = TripletSampler(table, SamplingSpec(images_per_landmark=2)).plan()
    except (LandmarkTableError, NoExampleError) as error:
        if len(str(error)) > 1000:
            raise WrongError(f"a message of {len(str(error)):,} characters") from None
        return type(error).__name__
    if len(np.unique(table.image_ids)) != table.num_images or plan.max() >= table.num_images or plan.min() < 0:
        raise WrongError("the table or the plan is not valid")
    return "read"


@functools.cache
def _zips() -> list[bytes]:
    archives = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr(TABLE_NAME, _tables()[0])
            archive.writestr("sample_submission.csv", "id,images\n")
            for image_id, image in zip(_ids(), _images(), strict=True):
                with archive.open(f"train/{image_path(image_id)}", "w", force_zip64=image_id % 2 == 0) as member:
                    member.write(image)
        archives.append(buffer.getvalue())
    return archives


def run_zip(rng: random.Random, folder: Path) -> str:
    """Reads what a damaged zip holds."""
    (folder / ZIP_NAME).write_bytes(_mutate(rng.choice(_zips()), rng, mutations.mutate_zip))
    # A zip has checksums: what is read is right.
    return _read_all(folder, lambda content: content in _images())


@functools.cache
def _tars() -> list[bytes]:
    archives = []
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
            for image_id, image in zip(_ids(), _images(), strict=True):
                info = tarfile.TarInfo(image_path(image_id))
                info.size = len(image)
                info.pax_headers = {"comment": "of the extended format"}
                archive.addfile(info, io.BytesIO(image))
            if tar_format != tarfile.USTAR_FORMAT:
                archive.addfile(tarfile.TarInfo("long/" * 60 + "name"))
        archives.append(buffer.getvalue())
    return archives


def run_tar(rng: random.Random, folder: Path) -> str:
    """Reads what a damaged tar holds."""
    (folder / IMAGES_NAME).mkdir()
    (folder / TABLE_NAME).write_bytes(_tables()[0])
    data = _mutate(rng.choice(_tars()), rng, mutations.mutate_tar)
    (folder / IMAGES_NAME / "images_000.tar").write_bytes(data)
    return _read_all(folder, lambda content: content in data)


def _read_all(folder: Path, is_right: Callable[[bytes], bool]) -> str:
    unreadable = 0
    try:
        source = find_source(epath.Path(folder), str(folder / "bank"))
        source.prepare(1, lambda num_done, num_all: None)
        table = source.read_table()
        for image_id in [*table.image_ids.tolist(), *_ids()]:
            source.stamp(image_id)
            try:
                content = source.read(image_id)
                if not is_right(content):
                    raise WrongError(f"{source.locate(image_id)} is read as something else")
                make_thumbnail(content, _SPECS[0])
            except UnreadableImageError:
                unreadable += 1
    except (ArchiveError, LandmarkTableError) as error:
        if str(folder) not in str(error):
            raise WrongError(f"the message does not name the archive: {error}") from None
        return type(error).__name__
    return "read, but for single images" if unreadable else "read"


def _mutate(data: bytes, rng: random.Random, own: mutations.Mutate) -> bytes:
    """Damages a file without knowing its kind, or knowing it, or both."""
    how = rng.choice(["bytes", "own", "own", "both"])
    if how != "bytes":
        data = own(data, rng)
    return data if how == "own" else mutations.mutate_bytes(data, rng)


KINDS: dict[str, Callable[[random.Random, Path], str]] = {
    "image": run_image,
    "table": run_table,
    "zip": run_zip,
    "tar": run_tar,
}


def run_case(kind: str, number: int, folder: Path) -> str:
    """Runs one case and returns how it ended; what begins with `WRONG` must not be.

    Args:
      kind: a key of `KINDS`.
      number: of the case, which decides everything about it.
      folder: that does not exist yet; it is removed.
    """
    folder.mkdir(parents=True)
    try:
        return KINDS[kind](random.Random(f"{kind} {number}"), folder)
    except Exception as error:
        return f"{WRONG}: {type(error).__name__}: {str(error)[:300]}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
