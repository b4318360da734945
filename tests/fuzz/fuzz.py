"""Damaged images, tables and archives through the code of a build: no crash, no hang, bounded memory, clear errors.

Images go through `make_thumbnail`; tables are read and triplets drawn from them; archives are found in a folder and
indexed, their table is read, and each image is read and made into a thumbnail; so too with an index that is damaged, or
is of an archive that was changed behind its back, and where a pipe or a device is in the place of a file. A case ends
in one of the ways in which a build may end, or is wrong.

The cases run one after the other in a process of their own, which this one watches: where a case ends or hangs it, the
rest goes on in a new process. Each case is made from its number, so that any of them can be run again:
``--kind zip --first 123 --count 1``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
import contextlib
import functools
import io
import multiprocessing
from multiprocessing.connection import Connection
import os
from pathlib import Path
import random
import resource
import sys
import tarfile
import tempfile
import time
import zipfile

from etils import epath
import numpy as np
from PIL import Image

from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.layout import IMAGES_NAME, TABLE_NAME, ZIP_NAME, image_path
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import format_image_id, parse_landmark_table
from landmark_triplets_tfds.errors import (
    ArchiveError,
    InputFileError,
    LandmarkTableError,
    NoExampleError,
    UnreadableImageError,
)
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, import_tensorflow, make_thumbnail, run_tensorflow
from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler
from tests.fuzz import mutations
from tests.support.special_files import SPECIAL_FILES

MAX_SECONDS = 5.0  # of CPU time, for a case
MAX_BYTES = 2 << 30  # of resident memory, with the imports

_HANG_SECONDS = 30.0  # of wall time: other programs may be using the cores
_START_SECONDS = 120.0  # imports, TensorFlow's among them

_SPECS = (
    ThumbnailSpec(resolution=32),
    ThumbnailSpec(resolution=32, resize_method="area", fit="crop"),
    ThumbnailSpec(resolution=48, fit="pad"),
)
# Reasons for which what TensorFlow decodes may be refused.
_NOT_DECODED = (UnreadableImageError.TOO_LARGE, UnreadableImageError.NO_MEMORY)
_IDS = [random.Random(number).getrandbits(64) for number in range(6)]


# --- Whole files


@functools.cache
def _images() -> list[bytes]:
    """Returns images of many kinds, 40 to 250 px, of about 2 to 30 kB."""
    rng = np.random.default_rng(0)
    images = []
    for height, width in ((40, 60), (250, 200)):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((width, height))
        pixels = np.asarray(coarse, dtype=np.int16) + rng.integers(-4, 5, (height, width, 1))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        grey = picture.convert("L")
        images += [_encode(picture, "JPEG", subsampling=subsampling) for subsampling in (0, 1, 2)]
        images += [
            _encode(picture, "JPEG", progressive=True),
            _encode(picture, "JPEG", restart_marker_blocks=3),
            _encode(grey, "JPEG"),
            _encode(grey, "JPEG", progressive=True),
            _encode(picture.convert("CMYK"), "JPEG"),
            _encode(picture, "PNG"),
            _encode(grey, "PNG"),
            _encode(picture.quantize(16), "PNG"),
            _encode(picture.quantize(16), "GIF"),
            _encode(Image.fromarray(np.asarray(grey, dtype=np.uint16) * 257), "PNG"),
        ]
    return images


def _encode(picture: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def _members() -> list[tuple[int, bytes]]:
    return list(zip(_IDS, _images(), strict=False))


@functools.cache
def _tables() -> list[bytes]:
    """Returns the same table as train.csv, with URLs, and as train_clean.csv."""
    rows = [(format_image_id(image_id), number // 2 + 5) for number, image_id in enumerate(_IDS)]
    plain = "id,landmark_id\n" + "".join(f"{name},{landmark}\n" for name, landmark in rows)
    urls = "id,url,landmark_id\n" + "".join(f'{name},"http://x/a,{name}.jpg",{landmark}\n' for name, landmark in rows)
    clean = "landmark_id,images\n" + "".join(f"{rows[n][1]},{rows[n][0]} {rows[n + 1][0]}\n" for n in (0, 2, 4))
    return [plain.encode(), urls.encode(), clean.encode()]


@functools.cache
def _zips() -> list[bytes]:
    archives = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr(TABLE_NAME, _tables()[0])
            archive.writestr("sample_submission.csv", "id,images\n")
            for image_id, image in _members():
                with archive.open(f"train/{image_path(image_id)}", "w", force_zip64=image_id % 2 == 0) as member:
                    member.write(image)
        archives.append(buffer.getvalue())
    return archives


@functools.cache
def _tars() -> list[bytes]:
    archives = []
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
            for image_id, image in _members():
                info = tarfile.TarInfo(image_path(image_id))
                info.size = len(image)
                info.pax_headers = {"comment": "of the extended format"}
                archive.addfile(info, io.BytesIO(image))
            if tar_format != tarfile.USTAR_FORMAT:
                archive.addfile(tarfile.TarInfo("long/" * 60 + "name"))
        archives.append(buffer.getvalue())
    return archives


# --- Cases: each returns how it ended, and raises whatever a build must not raise


def _run_image(rng: random.Random, folder: Path) -> str:
    image, spec = mutations.mutate(rng.choice(_images()), rng, mutations.mutate_image), rng.choice(_SPECS)
    try:
        thumbnail = make_thumbnail(image, spec)
    except UnreadableImageError as error:
        if error.reason not in _NOT_DECODED and _as_tensorflow(image) is not None:
            raise ValueError(f"TensorFlow reads what is refused: {error}") from error
        return f"unreadable: {error.reason}"
    expected = _as_tensorflow(image)
    assert expected is not None, "TensorFlow refuses it"
    assert thumbnail == expected or spec != _SPECS[0], "the bytes are not TensorFlow's"
    with Image.open(io.BytesIO(thumbnail)) as picture:
        picture.load()
        assert picture.size == (spec.resolution, spec.resolution)
        assert picture.mode in ("RGB", "L")
    return "read"


def _as_tensorflow(image: bytes) -> bytes | None:
    """Returns the thumbnail of the first spec by TensorFlow's operations; None if they refuse the image."""
    tf = import_tensorflow()
    try:
        resized = tf.image.resize(tf.io.decode_jpeg(image), (32, 32), method="nearest")
        encoded: bytes = tf.io.encode_jpeg(resized, quality=_SPECS[0].jpeg_quality, optimize_size=True).numpy()
    except tf.errors.InvalidArgumentError:
        return None
    return encoded


def _run_table(rng: random.Random, folder: Path) -> str:
    content = mutations.mutate(rng.choice(_tables()), rng, mutations.mutate_table)
    try:
        table = parse_landmark_table(content, "train.csv")
        plan = TripletSampler(table, SamplingSpec(images_per_landmark=2)).plan()
    except NoExampleError:
        return "no triplet"
    except LandmarkTableError as error:
        return _check(error, "train.csv")
    assert len(np.unique(table.image_ids)) == table.num_images > plan.max() >= plan.min() >= 0
    return "read"


def _run_zip(rng: random.Random, folder: Path) -> str:
    (folder / ZIP_NAME).write_bytes(mutations.mutate(rng.choice(_zips()), rng, mutations.mutate_zip))
    # A zip has checksums: what is read is right.
    return _read_all(folder, lambda image_id, content: content in _images())


def _run_tar(rng: random.Random, folder: Path) -> str:
    archive = mutations.mutate(rng.choice(_tars()), rng, mutations.mutate_tar)
    (folder / IMAGES_NAME).mkdir()
    (folder / IMAGES_NAME / "images_000.tar").write_bytes(archive)
    (folder / TABLE_NAME).write_bytes(_tables()[0])
    return _read_all(folder, lambda image_id, content: content in archive)


def _run_index(rng: random.Random, folder: Path) -> str:
    """Damages the index of an archive, or the archive so that it has the size and time that the index knows."""
    is_zip, bank = rng.random() < 0.5, str(folder / "bank")
    (folder / IMAGES_NAME).mkdir()
    path = folder / (ZIP_NAME if is_zip else f"{IMAGES_NAME}/images_000.tar")
    path.write_bytes(rng.choice(_zips() if is_zip else _tars()))
    if not is_zip:
        (folder / TABLE_NAME).write_bytes(_tables()[0])
    source = find_source(epath.Path(folder), bank)
    source.prepare(1)
    how = rng.choice(["index", "archive", "archive while it is read"])
    if how == "index":
        index = next(path for path in Path(bank).iterdir() if not path.name.startswith(("index-", "test-")))
        index.write_bytes(mutations.mutate_bytes(index.read_bytes(), rng))
        with contextlib.redirect_stdout(None):
            outcome = _read_all(folder, lambda image_id, content: content == dict(_members())[image_id])
        assert outcome == "read", "an index that was damaged was used"
        return "read, after a damaged index"
    whole, known = path.read_bytes(), path.stat()
    changed = mutations.mutate(whole, rng, mutations.mutate_zip if is_zip else mutations.mutate_tar)
    changed = changed[: len(whole)].ljust(len(whole), b"\0")
    path.write_bytes(changed)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))

    def is_right(image_id: int, content: bytes) -> bool:
        if is_zip:
            return content == dict(_members())[image_id]
        places = [at for at in range(0, len(changed), 512) if changed.startswith(content, at)]
        return any(format_image_id(image_id).encode() in changed[at - 512 : at] for at in places)

    return _read_all(folder, is_right, None if how == "archive" else source)


def _run_special(rng: random.Random, folder: Path) -> str:
    """Puts a pipe, a socket or a device in the place of a file of a copy, before the copy is opened or after that."""
    layout = rng.choice(["extracted", "zip", "tar"])
    if layout == "zip":
        (folder / ZIP_NAME).write_bytes(rng.choice(_zips()))
    else:
        (folder / TABLE_NAME).write_bytes(_tables()[0])
        (folder / IMAGES_NAME).mkdir()
    if layout == "tar":
        (folder / IMAGES_NAME / "images_000.tar").write_bytes(rng.choice(_tars()))
        (folder / IMAGES_NAME / "md5sums.txt").write_text("# none\n")
    elif layout == "extracted":
        for image_id, image in _members():
            path = folder / IMAGES_NAME / image_path(image_id)
            path.parent.mkdir(parents=True)
            path.write_bytes(image)
    source = None
    if rng.random() < 0.5:
        source = find_source(epath.Path(folder), str(folder / "bank"))
        source.prepare(1)
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    path.unlink()
    SPECIAL_FILES[rng.choice(list(SPECIAL_FILES))](path)
    is_kept = rng.random() < 0.5
    with contextlib.redirect_stdout(None):
        try:
            outcome = _read_all(folder, lambda image_id, content: content in _images(), source if is_kept else None)
        except InputFileError as error:
            outcome = _check(error, str(path))
    return outcome


def _read_all(folder: Path, is_right: Callable[[int, bytes], bool], source: ImageSource | None = None) -> str:
    unreadable = 0
    try:
        if source is None:
            source = find_source(epath.Path(folder), str(folder / "bank"))
            source.prepare(1)
        for image_id in [*source.read_table().image_ids.tolist(), *_IDS]:
            source.stamp(image_id)
            try:
                content = source.read(image_id)
                assert is_right(image_id, content), f"{source.locate(image_id)} is read as something else"
                make_thumbnail(content, _SPECS[0])
            except UnreadableImageError:
                unreadable += 1
    except (ArchiveError, LandmarkTableError) as error:
        return _check(error, str(folder))
    return "read, but for single images" if unreadable else "read"


def _check(error: Exception, name: str) -> str:
    """Returns the type of an error, whose message must name the file and be short enough to read."""
    assert name in str(error), f"the message does not name the file: {error}"
    assert len(str(error)) <= 5000  # some of them say which layouts are expected
    return type(error).__name__


_KINDS = {
    "image": _run_image,
    "table": _run_table,
    "zip": _run_zip,
    "tar": _run_tar,
    "index": _run_index,
    "special": _run_special,
}
_COUNTS = {"image": 10_000, "table": 1_000, "zip": 1_000, "tar": 1_000, "index": 1_000, "special": 1_000}


# --- Running them


def _run_cases(kind: str, first: int, end: int, pipe: Connection) -> None:
    """Sends the outcome of each case and the peak of memory so far, in bytes; None when it is ready to begin."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what codecs say of damaged files
    run_tensorflow("decode_jpeg", _images()[0])  # the first file that needs it would wait for it
    pipe.send(None)
    for number in range(first, end):
        started = time.process_time()
        with tempfile.TemporaryDirectory(prefix="fuzz.") as folder:
            try:
                outcome = _KINDS[kind](random.Random(f"{kind} {number}"), Path(folder))
            except Exception as error:
                outcome = f"WRONG: {type(error).__name__}: {str(error)[:300]}"
        if time.process_time() - started > MAX_SECONDS:
            outcome = f"WRONG: {time.process_time() - started:.0f} s of CPU time"
        pipe.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10))


@contextlib.contextmanager
def _started(kind: str, first: int, end: int) -> Iterator[Connection]:
    """Starts a process that runs cases, and yields the pipe by which it tells of each."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run_cases, args=(kind, first, end, sending), daemon=True)
    process.start()
    sending.close()
    try:
        if receiving.poll(_START_SECONDS):
            receiving.recv()
        yield receiving
    finally:
        process.kill()
        process.join()
        receiving.close()


def _receive(pipe: Connection) -> tuple[str, int]:
    try:
        if pipe.poll(_HANG_SECONDS):
            outcome: tuple[str, int] = pipe.recv()
            return outcome
        return f"WRONG: not done within {_HANG_SECONDS:.0f} s", 0
    except EOFError:
        return "WRONG: the process ended", 0


def run(kind: str, first: int, count: int) -> bool:
    """Runs cases of one kind, prints what came of them and returns whether nothing went wrong."""
    outcomes: Counter[str] = Counter()
    wrong: dict[int, str] = {}
    peak_bytes = 0
    number, end = first, first + count
    with progress_bar(count, kind, " cases") as bar:
        while number < end:
            with _started(kind, number, end) as pipe:
                is_alive = True
                while is_alive and number < end:
                    outcome, num_bytes = _receive(pipe)
                    outcomes["WRONG" if outcome.startswith("WRONG") else outcome] += 1
                    if outcome.startswith("WRONG"):
                        wrong[number] = outcome
                    peak_bytes = max(peak_bytes, num_bytes)
                    is_alive = num_bytes > 0
                    number += 1
                    bar.update()
    print(f"{kind}: {count:,} cases, peak of memory {peak_bytes / 1e6:,.0f} MB")
    print("\n".join(f"  {number:6,} {outcome}" for outcome, number in outcomes.most_common()))
    print("".join(f"  case {number}: {outcome}\n" for number, outcome in list(wrong.items())[:20]), end="", flush=True)
    return not wrong and peak_bytes <= MAX_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(_KINDS), action="append", help="only this kind (may be given again)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    parser.add_argument("--count", type=int, help="cases of each kind (default: 10,000 images, 1,000 of the others)")
    arguments = parser.parse_args()
    is_right = [run(kind, arguments.first, arguments.count or _COUNTS[kind]) for kind in arguments.kind or _KINDS]
    if not all(is_right):
        print("Something went wrong, see above.")
        sys.exit(1)
    print(
        f"No crash, no case over {MAX_SECONDS:.0f} s of CPU time, no peak of memory over {MAX_BYTES / 1e9:.1f} GB, no"
        " error that a build would not report."
    )


if __name__ == "__main__":
    main()
