"""One build on a cluster, as the program that starts it sees it: from the folder to the finished report.

The work itself is `beam_pipeline`, which is imported only here and only when it is needed: Beam takes a second to
import. What comes back from the workers are files in the folder of the unfinished dataset; they are read and removed
here before TFDS publishes it.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from etils import epath
import numpy as np

from landmark_triplets_tfds import triplets_csv
from landmark_triplets_tfds.beam_outcome import Outcome
from landmark_triplets_tfds.build_report import describe_unreadable
from landmark_triplets_tfds.cluster_plan import ClusterPlan, choose_images_per_chunk, choose_triplets_per_range
from landmark_triplets_tfds.errors import TooManyUnreadableError, UnreadableImageError
from landmark_triplets_tfds.local_build import Build, Rows
from landmark_triplets_tfds.sampling import SamplingSpec
from landmark_triplets_tfds.thumbnails import ThumbnailSpec, make_thumbnail

_OUTCOME_NAME = "beam_outcome.json"
_KEPT_ROWS_NAME = "beam_kept_rows.npy"
_CSV_PARTS_NAME = "beam_triplets_csv"

# Reading ahead within a chunk of images pays where files are slow to open. On a local disk it costs more than it saves.
_NUM_REMOTE_READERS = 16

# What TFDS's writer says when no example arrives, and how many images are tried then, here, to learn why.
_NOTHING_TO_WRITE = "total number of generated examples is 0"
_NUM_TRIED = 20


class BeamBuild(Build):
    """A build on a cluster."""

    def __init__(
        self, manual_dir: epath.Path, data_dir: epath.Path, thumbnail_spec: ThumbnailSpec, missing_images: str
    ):
        """See `Build`.

        Raises:
          ValueError: if a path would mean another folder on a worker.
        """
        for option, path in (("--manual_dir", manual_dir), ("--data_dir", data_dir)):
            if "://" not in str(path) and not path.is_absolute():
                raise ValueError(
                    f"With Beam, {option} must be an absolute path or a URL such as gs://..., since workers may have"
                    f" another working folder, got {path}."
                )
        super().__init__(manual_dir, data_dir, thumbnail_spec, missing_images)
        self._manual_dir = manual_dir
        self._outcome_path = data_dir / _OUTCOME_NAME
        self._kept_rows_path = data_dir / _KEPT_ROWS_NAME
        self._csv_parts_path = data_dir / _CSV_PARTS_NAME

    def make_examples(self, sampling_spec: SamplingSpec, num_triplets: int, rows: Rows) -> Any:
        """Returns a PTransform that makes keyed examples when TFDS runs it.

        Args:
          sampling_spec: says which triplets.
          num_triplets: how many of them.
          rows: int64[num_images] of the table: the distinct images of these triplets.

        Raises:
          MissingImagesError: if a sample of the images shows that many files are missing.
        """
        self.look_up(rows)
        self._planned_rows = rows
        is_whole = self.table is self._whole_table
        if not is_whole:
            with self._kept_rows_path.open("wb") as file:
                np.save(file, np.isin(self._whole_table.image_ids, self.table.image_ids))
        plan = ClusterPlan(
            manual_dir=str(self._manual_dir),
            table_sha256=self.table.fingerprint,
            kept_rows_path=None if is_whole else str(self._kept_rows_path),
            sampling_spec=sampling_spec,
            thumbnail_spec=self._thumbnail_spec,
            num_triplets=num_triplets,
            triplets_per_range=choose_triplets_per_range(num_triplets, self._thumbnail_spec.resolution),
            images_per_chunk=choose_images_per_chunk(self.table.num_images),
            num_readers=self._num_readers(),
        )
        with_csv = self.options.triplets_csv
        if with_csv:
            self._csv_parts_path.mkdir(parents=True, exist_ok=True)
        from landmark_triplets_tfds import beam_pipeline

        self._started = time.perf_counter()
        return beam_pipeline.MakeExamples(
            plan, str(self._outcome_path), str(self._csv_parts_path) if with_csv else None
        )

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)
        if value is not None and _NOTHING_TO_WRITE in str(value):
            self._raise_nothing_readable(value)

    def finish(self) -> None:
        self.report.seconds["run_pipeline"] = time.perf_counter() - self._started
        outcome = Outcome.read(self._outcome_path)
        beyond_plan = outcome.redrawn.difference(self._planned_rows.tolist())
        self.report.num_images_read = self.report.num_thumbnails_made = len(self._planned_rows) + len(beyond_plan)
        self.report.triplets = outcome.counts
        self.check_unreadable(outcome.errors())
        if self.options.triplets_csv:
            self._join_csv()
        self._clean_up()

    def threads_used(self) -> dict[str, int | None]:
        return {"workers": None, "readers": self._num_readers()}

    def _num_readers(self) -> int:
        return self.options.readers or (_NUM_REMOTE_READERS if self.source.is_remote else 1)

    def _raise_nothing_readable(self, error: BaseException) -> None:
        """Says why there is nothing to write; returns if it is not for want of readable images."""
        rows = self._planned_rows[:_NUM_TRIED].tolist()
        unreadable: dict[int, UnreadableImageError] = {}
        for row in rows:
            try:
                make_thumbnail(self.source.read(int(self.table.image_ids[row])), self._thumbnail_spec)
            except UnreadableImageError as reason:
                unreadable[row] = reason.without_traceback()
        if unreadable:
            raise TooManyUnreadableError(
                "Stopped, and nothing was published: no triplet could be made. Unreadable among the first"
                f" {len(rows)} images of this dataset: {describe_unreadable(self.list_unreadable(unreadable))}\n"
                "Fetch these files again."
            ) from error

    def _join_csv(self) -> None:
        with (self._data_dir / triplets_csv.TRIPLETS_NAME).open("w") as file:
            file.write(triplets_csv.HEADER)
            for part in sorted(self._csv_parts_path.iterdir()):
                file.write(part.read_text())
        self._csv_parts_path.rmtree()

    def _clean_up(self) -> None:
        """Removes what must not be published: files for the workers, and shards left half written by dead ones."""
        for path in (self._outcome_path, self._kept_rows_path, *self._data_dir.glob("incomplete.*")):
            path.unlink(missing_ok=True)
