"""One build on this machine: from the folder with the competition's files to the finished report.

`builder_base` says when TFDS wants what; this module does it: it reads the table, looks whether the images are there,
runs the bank of thumbnails with its progress bar, stops a build that would leave out too much, and completes the
report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
import contextlib
import dataclasses
import json
import sys
import time
from types import TracebackType
from typing import Any, TypeVar

from etils import epath
import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from landmark_triplets_tfds import build_report, triplets_csv
from landmark_triplets_tfds.bank_file import BankFile
from landmark_triplets_tfds.bank_folder import open_store
from landmark_triplets_tfds.build_options import BuildOptions
from landmark_triplets_tfds.build_report import BuildReport, UnreadableImage
from landmark_triplets_tfds.errors import BankError, LandmarkTableError, MissingImagesError, UnreadableImageError
from landmark_triplets_tfds.landmarks import LandmarkTable, format_image_id, read_landmark_table
from landmark_triplets_tfds.sources import ImageSource, find_source
from landmark_triplets_tfds.tensorflow_ops import import_tensorflow
from landmark_triplets_tfds.thumbnail_bank import ThumbnailBank
from landmark_triplets_tfds.thumbnails import ThumbnailSpec

Rows = npt.NDArray[np.int64]
KeyedExamples = Iterator[tuple[str, dict[str, Any]]]

_AnyBuild = TypeVar("_AnyBuild", bound="Build")

# Images looked up before a build starts: enough to estimate the missing share to about 2 %, done within seconds.
_NUM_LOOKED_UP = 2000
_LOOKED_UP_TOGETHER = 250  # a task of its own for each would cost more than looking in a local folder
_MIN_MISSING = 10


def read_table(source: ImageSource, missing_images: str, options: BuildOptions) -> tuple[LandmarkTable, LandmarkTable]:
    """Reads the table of images.

    Args:
      source: of the files.
      missing_images: 'drop' leaves out the rows without a file; 'error' keeps them.
      options: say how many threads list folders.

    Returns:
      The table to sample from, and the whole one.

    Raises:
      LandmarkTableError: if the table is invalid, or 'drop' leaves nothing of it.
    """
    whole = read_landmark_table(source.table_path)
    if missing_images == "error":
        return whole, whole
    with _progress_bar(None, "Listing images", " folders") as bar:

        def advance(num_listed: int, num_folders: int) -> None:
            bar.total = num_folders
            bar.update(1)

        present = source.find_present(whole.image_ids, options.num_readers(source.is_remote), advance)
    if not present.any():
        raise LandmarkTableError(
            f"None of the {whole.num_images:,} images in {source.table_path} has a file; the first would be"
            f" {source.locate(int(whole.image_ids[0]))}."
        )
    return (whole if present.all() else whole.restrict(present)), whole


class Build:
    """A build in progress, here or on a cluster. A context manager: leaving it lets go of all that was opened."""

    def __init__(
        self,
        manual_dir: epath.Path,
        data_dir: epath.Path,
        thumbnail_spec: ThumbnailSpec,
        missing_images: str,
    ):
        """Finds the files and reads the table.

        Args:
          manual_dir: the folder with the competition's files.
          data_dir: where the dataset is being written.
          thumbnail_spec: of the dataset's images.
          missing_images: see `read_table`.
        """
        self.options = BuildOptions.from_environment()
        self._data_dir = data_dir
        self._thumbnail_spec = thumbnail_spec
        self._resources = contextlib.ExitStack()
        started = time.perf_counter()
        self.source = find_source(manual_dir)
        self.table, self._whole_table = read_table(self.source, missing_images, self.options)
        self.report = BuildReport(
            self.table,
            num_images_dropped=self._whole_table.num_images - self.table.num_images,
            num_landmarks_dropped=self._whole_table.num_landmarks - self.table.num_landmarks,
            seconds={"read_table": time.perf_counter() - started},
        )

    def __enter__(self: _AnyBuild) -> _AnyBuild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def look_up(self, rows: Rows) -> None:
        """Looks whether files are there before anything is made.

        Args:
          rows: int64[num_images] of the table: the distinct images of the plan.

        Raises:
          MissingImagesError: if more of a sample of them is missing than may be unreadable.
        """
        self._num_planned = len(rows)
        self.max_num_unreadable = self.options.max_num_unreadable(len(rows))
        with self.report.stage("look_up_images"):
            self._look_up(rows)

    def _look_up(self, rows: Rows) -> None:
        sample = rows[np.linspace(0, len(rows) - 1, min(_NUM_LOOKED_UP, len(rows))).astype(np.int64)]
        ids: list[int] = self.table.image_ids[sample].tolist()

        def find_missing(start: int) -> list[int]:
            return [i for i in ids[start : start + _LOOKED_UP_TOGETHER] if not self.source.exists(i)]

        with ThreadPoolExecutor(self.options.num_readers(self.source.is_remote)) as pool:
            groups = pool.map(find_missing, range(0, len(ids), _LOOKED_UP_TOGETHER))
            missing = [image_id for group in groups for image_id in group]
        if len(missing) < _MIN_MISSING or len(missing) <= self.options.max_unreadable * len(sample):
            return
        share = len(missing) / len(sample)
        if len(sample) == len(rows):
            found = f"{len(missing):,} of the {len(rows):,} images of this dataset have no file ({share:.0%})."
        else:
            found = (
                f"{len(missing):,} of {len(sample):,} images looked up have no file, so about {share:.0%} of the"
                f" {len(rows):,} images of this dataset are missing."
            )
        raise MissingImagesError(
            f"{found} For example {self.source.locate(missing[0])} and"
            f" {format_image_id(missing[1])}. Fetch the rest; or, to build from the images that are there, use a config"
            """ with missing_images='drop', such as --config '{"name": "128px_partial", "missing_images": "drop"}'."""
            f" (LANDMARK_TRIPLETS_MAX_UNREADABLE={min(1, share + 0.01):.0%} would also let this build start, and draw"
            " other images in place of the missing ones.)"
        )

    def write_report(self, asked_for: dict[str, Any]) -> None:
        """Writes build_report.json: what was asked for, the options and what came of it."""
        options = dataclasses.asdict(self.options) | self.threads_used()
        content = asked_for | {"build_options": options} | self.report.as_json()
        (self._data_dir / build_report.REPORT_NAME).write_text(json.dumps(content, indent=2) + "\n")

    def threads_used(self) -> dict[str, int | None]:
        """Returns the numbers of workers and readers; None: not decided here."""
        raise NotImplementedError

    def finish(self) -> None:
        """Completes the report once TFDS has written the shards; raises if too much was unreadable."""
        raise NotImplementedError

    def list_unreadable(self, errors: Mapping[int, UnreadableImageError]) -> list[UnreadableImage]:
        """Returns the unreadable images, given by row, in order of their ids."""
        images = []
        for row, error in errors.items():
            image_id = int(self.table.image_ids[row])
            images.append(UnreadableImage(image_id, error.reason, error.detail, self.source.locate(image_id)))
        return sorted(images)

    def check_unreadable(self, errors: Mapping[int, UnreadableImageError]) -> None:
        """Lists the unreadable images, given by row, in the report; raises if there are too many."""
        self.report.unreadable = self.list_unreadable(errors)
        build_report.check_num_unreadable(self.report.unreadable, self.max_num_unreadable, self._num_planned)


class LocalBuild(Build):
    """A build on this machine. Leaving its context stops the threads and removes what waited on disk."""

    def open_bank(self, rows: Rows, in_order_of_use: Callable[[], Iterator[Rows]]) -> ThumbnailBank:
        """Starts making the thumbnails that the plan needs.

        Args:
          rows: int64[num_images] of the table, each row once.
          in_order_of_use: returns an iterator over the same rows in arrays, in the order in which they will be asked
            for, repeats allowed.

        Raises:
          MissingImagesError: if a sample of them shows that many files are missing.
        """
        self.look_up(rows)
        # TFDS's writer needs it in any case. In the middle of the build, the import would hold up everything, the
        # bank's commits too, for a second and more.
        with self.report.stage(build_report.IMPORT_STAGE):
            import_tensorflow()
        self._examples_started = self._examples_ended = time.perf_counter()
        spill_folder = None if "://" in str(self._data_dir) else str(self._data_dir)
        ids, spec = self.table.image_ids, self._thumbnail_spec
        self._store = open_store(self.options.bank, spec, ids, rows, spill_folder)
        bar = self._resources.enter_context(_progress_bar(len(rows), "Making thumbnails", " images"))

        def advance(num_new: int, num_done: int) -> None:
            bar.total = max(len(rows), num_done)  # redraws read images beyond the plan
            bar.update(num_new)
            if len(self._bank.unreadable) > self.max_num_unreadable:
                self.check_unreadable(self._bank.unreadable)

        self._bank: ThumbnailBank = self._resources.enter_context(
            ThumbnailBank(
                self.source,
                ids,
                spec,
                self._store,
                num_workers=self.options.num_workers(),
                num_readers=self.options.num_readers(self.source.is_remote),
                on_done=advance,
            )
        )
        self._bank.make_ahead(in_order_of_use)
        return self._bank

    def follow(self, examples: KeyedExamples) -> KeyedExamples:
        """Passes examples on to TFDS, taking the time and, as a build option, writing down their ids."""
        with contextlib.ExitStack() as stack:
            write_line = None
            if self.options.triplets_csv:
                file = stack.enter_context((self._data_dir / triplets_csv.TRIPLETS_NAME).open("w"))
                self._resources.callback(file.close)  # a capped split is not iterated to its end
                write_line = file.write
                write_line(triplets_csv.HEADER)
            for key, example in examples:
                if write_line:
                    write_line(triplets_csv.format_line(key, example))
                yield key, example
                self._examples_ended = time.perf_counter()

    def finish(self) -> None:
        self._bank.wait_for_all()
        self.report.seconds["make_examples"] = self._examples_ended - self._examples_started
        self.report.seconds["write_shards"] = time.perf_counter() - self._examples_ended
        self.report.num_images_read = self._bank.num_images()
        self.report.num_thumbnails_made = self._bank.num_made
        self.check_unreadable(self._bank.unreadable)
        self._resources.close()
        try:
            self._store.check()
        except BankError as error:  # at the very end: the dataset lacks nothing
            print(error)
        if isinstance(self._store, BankFile):
            self.report.bank, self.report.num_bank_bytes = str(self._store.path), self._store.num_bytes()

    def threads_used(self) -> dict[str, int | None]:
        return {
            "workers": self.options.num_workers(),
            "readers": self.options.num_readers(self.source.is_remote),
        }


def _progress_bar(total: int | None, description: str, unit: str) -> Any:
    """Returns a tqdm bar that follows ``tfds.disable_progress_bar`` and writes seldom where lines cannot be redrawn."""
    redrawn = sys.stderr.isatty() or tfds.core.utils.is_notebook()
    return tfds.core.utils.tqdm(
        total=total, desc=description, unit=unit, mininterval=0.5 if redrawn else 30.0, leave=False
    )
