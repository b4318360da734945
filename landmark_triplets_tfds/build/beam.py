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
import numpy.typing as npt

from landmark_triplets_tfds.build.build import Build, SplitJob
from landmark_triplets_tfds.build.cluster import (
    ClusterPlan,
    Outcome,
    choose_examples_per_range,
    choose_images_per_chunk,
)
from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.report import describe_unreadable
from landmark_triplets_tfds.common.file_access import is_remote
from landmark_triplets_tfds.errors import LandmarkTripletsError, TooManyUnreadableError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import make_thumbnail
from landmark_triplets_tfds.triplets.examples import TRIPLETS
from landmark_triplets_tfds.triplets.triplets_file import CSV_HEADER, csv_name

# Reading ahead within a chunk of images pays where files are slow to open. On a local disk it costs more than it saves.
_NUM_REMOTE_READERS = 16

# Images of each split that are tried here when a pipeline has failed.
_NUM_TRIED = 20


class BeamBuild(Build):
    """A build on a cluster."""

    def __init__(
        self,
        manual_dir: epath.Path,
        data_dir: epath.Path,
        config: LandmarkBuilderConfig,
        max_examples: int | None,
        options: BuildOptions,
    ):
        """See `Build`.

        Raises:
          ValueError: if a path would mean another folder on a worker.
        """
        for option, path in (("--manual_dir", manual_dir), ("--data_dir", data_dir)):
            if not is_remote(str(path)) and not path.is_absolute():
                raise ValueError(
                    f"With Beam, {option} must be an absolute path or a URL such as gs://..., since workers may have"
                    f" another working folder, got {path}."
                )
        super().__init__(manual_dir, data_dir, config, max_examples, options)
        self._saved: list[epath.Path] = []

    def _examples_of(self, job: SplitJob) -> Any:
        """Returns a PTransform that makes keyed examples when TFDS runs it."""
        table, whole, spec = job.images.table, self._selection.whole, job.planned.spec
        kept_rows_path = image_ids_path = None
        if job.split in self._selection.unlabeled:  # listed once, here, and not by every worker
            image_ids_path = self._save(f"beam_image_ids-{job.split}.npy", table.image_ids)
        elif table is not whole:
            kept_rows_path = self._save("beam_kept_rows.npy", np.isin(whole.image_ids, table.image_ids))
        plan = ClusterPlan(
            source=job.images.source.share(self._data_dir),
            table_sha256=table.fingerprint,
            kept_rows_path=kept_rows_path,
            image_ids_path=image_ids_path,
            spec=self._save(f"beam_triplets-{job.split}.npy", spec) if isinstance(spec, np.ndarray) else spec,
            thumbnail_spec=self._thumbnail_spec,
            num_examples=job.num_examples,
            examples_per_range=choose_examples_per_range(job.num_examples, self._thumbnail_spec.resolution),
            images_per_chunk=choose_images_per_chunk(table.num_images),
            num_readers=self._num_readers(),
        )
        csv_parts = self._csv_parts_path(job) if self._writes_csv(job) else None
        if csv_parts is not None:
            csv_parts.mkdir(parents=True, exist_ok=True)
        from landmark_triplets_tfds.build import beam_pipeline

        self._started = time.perf_counter()
        return beam_pipeline.MakeExamples(
            plan, str(self._outcome_path(job)), None if csv_parts is None else str(csv_parts)
        )

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)
        if isinstance(value, Exception) and not isinstance(value, LandmarkTripletsError):
            self._raise_if_nothing_is_readable(value)

    def finish(self) -> None:
        self.report.add_seconds("run_pipeline", time.perf_counter() - self._started)
        for job in self.jobs:
            outcome = Outcome.read(self._outcome_path(job))
            beyond_plan = outcome.redrawn.difference(job.rows.tolist())
            num_images = len(job.rows) + len(beyond_plan)
            self.report.num_images_read += num_images
            self.report.num_thumbnails_made += num_images
            job.counts.add(outcome.counts)
            self.report.unreadable += job.check_unreadable(outcome.errors())
            if self._writes_csv(job):
                self._join_csv(job)
        self._clean_up()

    def threads_used(self) -> dict[str, int | None]:
        return {"workers": None, "readers": self._num_readers()}

    def _num_readers(self) -> int:
        return self.options.readers or (_NUM_REMOTE_READERS if self.source.is_remote else 1)

    def _raise_if_nothing_is_readable(self, error: Exception) -> None:
        """Says why a pipeline has failed if it is for want of readable images: TFDS says only that there is no example.

        Raises:
          TooManyUnreadableError: if none of the first images of a split is readable.
        """
        for job in self.jobs:
            rows = job.rows[:_NUM_TRIED].tolist()
            unreadable: dict[int, UnreadableImageError] = {}
            for row in rows:
                try:
                    make_thumbnail(job.images.source.read(int(job.images.table.image_ids[row])), self._thumbnail_spec)
                except UnreadableImageError as reason:
                    unreadable[row] = reason.without_traceback()
            if len(unreadable) == len(rows):
                listed = describe_unreadable(job.list_unreadable(unreadable))
                raise TooManyUnreadableError(
                    "Stopped, and nothing was published: the pipeline has failed, and none of the first"
                    f" {len(rows)} images of split {job.split!r} is readable: {listed}\nFetch these files again."
                ) from error

    def _writes_csv(self, job: SplitJob) -> bool:
        return self.options.triplets_csv and job.planned.plan.kind is TRIPLETS

    def _outcome_path(self, job: SplitJob) -> epath.Path:
        return self._data_dir / f"beam_outcome-{job.split}.json"

    def _csv_parts_path(self, job: SplitJob) -> epath.Path:
        return self._data_dir / f"beam_triplets_csv-{job.split}"

    def _join_csv(self, job: SplitJob) -> None:
        parts = self._csv_parts_path(job)
        with (self._data_dir / csv_name(job.split)).open("w") as file:
            file.write(CSV_HEADER)
            for part in sorted(parts.iterdir()):
                file.write(part.read_text())
        parts.rmtree()

    def _save(self, name: str, array: npt.NDArray[np.generic]) -> str:
        """Writes an array for the workers, once, and returns where it is."""
        path = self._data_dir / name
        if path not in self._saved:
            with path.open("wb") as file:
                np.save(file, array)
            self._saved.append(path)
        return str(path)

    def _clean_up(self) -> None:
        """Removes what must not be published: files for the workers, and shards left half written by dead ones."""
        for path in (
            *map(self._outcome_path, self.jobs),
            *self._saved,
            *self._data_dir.glob("*.index"),
            *self._data_dir.glob("incomplete.*"),
        ):
            path.unlink(missing_ok=True)
