"""Opening archives: time and memory for the first time, when they are indexed, and for every later time.

The archives are made up and as long as the real ones, in members: 1.6 million in a zip, and 500 tars of 8,266. The
members hold a few bytes, and the zip begins with a hole of 100 GiB, so that all its offsets need zip64. Each opening
is done by a process of its own, whose peak of memory is compared with that of its imports.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import itertools
import json
from pathlib import Path
import pickle
import tarfile
import tempfile
import time
import zipfile

from etils import epath

from benchmarks import processes
from benchmarks.harness import progress
from landmark_triplets_tfds.competition.layout import IMAGES_NAME, TABLE_NAME, ZIP_NAME, image_path
from landmark_triplets_tfds.competition.tables import format_image_id

_MODULE = "benchmarks.open_archives"
_HOLE_BYTES = 100 << 30
_IMAGE = b"\xff\xd8\xff not an image"
_NUM_THREADS = 8
_NUM_LOOKED_UP = 20_000


def image_ids(count: int) -> Iterator[int]:
    """Yields different ids in no order."""
    return (number * 0x9E3779B97F4A7C15 % 2**64 for number in range(count))


def write_zip(folder: Path, num_members: int) -> None:
    """Writes a zip with so many images and their table."""
    lines = "".join(f"{format_image_id(i)},{n % 81_313}\n" for n, i in enumerate(image_ids(num_members)))
    with (folder / ZIP_NAME).open("wb") as file:
        file.seek(_HOLE_BYTES)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(TABLE_NAME, "id,landmark_id\n" + lines, zipfile.ZIP_DEFLATED)
            for image_id in image_ids(num_members):
                archive.writestr(f"{IMAGES_NAME}/{image_path(image_id)}", _IMAGE)


def write_tars(folder: Path, num_tars: int, num_members: int) -> None:
    """Writes tars with so many images each; the table names one of them."""
    (folder / TABLE_NAME).write_text(f"id,landmark_id\n{format_image_id(0)},1\n")
    (folder / IMAGES_NAME).mkdir()
    ids = image_ids(num_tars * num_members)
    for tar in range(num_tars):
        progress(f"tar {tar + 1} of {num_tars}")
        with (folder / IMAGES_NAME / f"images_{tar:03d}.tar").open("wb") as file:
            for _ in range(num_members):
                member = tarfile.TarInfo(image_path(next(ids)))
                member.size = len(_IMAGE)
                file.write(member.tobuf(tarfile.USTAR_FORMAT) + _IMAGE.ljust(tarfile.BLOCKSIZE, b"\0"))
            file.write(bytes(2 * tarfile.BLOCKSIZE))


def measure(folder: Path, num_members: int) -> dict[str, float]:
    """Opens the copy in a folder; to be called in a fresh process."""
    from landmark_triplets_tfds.competition.source import find_source

    with processes.PeakMemory() as imports:
        pass
    with processes.PeakMemory() as memory:
        started = time.perf_counter()
        source = find_source(epath.Path(folder), str(folder / "bank"))
        source.prepare(_NUM_THREADS, lambda num_done, num_all: None)
        prepared_s = time.perf_counter() - started
        looked_up = list(itertools.islice(image_ids(num_members), 0, None, max(1, num_members // _NUM_LOOKED_UP)))
        started = time.perf_counter()
        num_bytes = sum(len(source.read(image_id)) for image_id in looked_up)
        read_s = time.perf_counter() - started
    if num_bytes != len(_IMAGE) * len(looked_up):
        raise RuntimeError("what was read is not what was written")
    return {
        "prepared_s": prepared_s,
        "read_us": read_s / len(looked_up) * 1e6,
        "peak_bytes": memory.peak_bytes - imports.peak_bytes,
        "resident_bytes": processes.resident_bytes() - imports.peak_bytes,
        "pickled_bytes": len(pickle.dumps(source)),
        "index_bytes": sum(path.stat().st_size for path in (folder / "bank").iterdir()),
    }


def _show(what: str, folder: Path, num_members: int) -> None:
    for label in ("first time", "again"):
        progress(f"{what}, {label}")
        found = processes.run_child(_MODULE, "--measure", str(folder), "--members", str(num_members))
        progress("")
        print(
            f"{what}, {label}: {found['prepared_s']:.3f} s, {found['peak_bytes'] / 1e6:,.0f} MB at the peak and"
            f" {found['resident_bytes'] / 1e6:,.0f} MB after it; then {found['read_us']:.0f} us per image read;"
            f" index {found['index_bytes'] / 1e6:,.1f} MB, sent to a process as {found['pickled_bytes']:,} bytes",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=1_600_000, help="images in the zip (default: %(default)s)")
    parser.add_argument("--tars", type=int, default=500, help="number of tars; 0: none (default: %(default)s)")
    parser.add_argument("--members-per-tar", type=int, default=8_266, help="images in each (default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where to write (default: the temporary folder)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.members)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        if arguments.members:
            progress("writing the zip")
            (zip_folder := Path(work) / "zip").mkdir()
            write_zip(zip_folder, arguments.members)
            _show(f"zip of {arguments.members:,} images", zip_folder, arguments.members)
        if arguments.tars:
            (tar_folder := Path(work) / "tars").mkdir()
            write_tars(tar_folder, arguments.tars, arguments.members_per_tar)
            num_members = arguments.tars * arguments.members_per_tar
            _show(f"{arguments.tars:,} tars of {num_members:,} images", tar_folder, num_members)


if __name__ == "__main__":
    main()
