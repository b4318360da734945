"""One build on a cluster, as the program that starts it sees it: from the folder to the finished report.

The work itself is `beam_pipeline`, which is imported only here and only when it is needed: Beam takes a second to
import. What comes back from the workers are files in the folder of the unfinished dataset; they are read and removed
here before TFDS publishes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.build import Build, SplitJob
from landmark_triplets_tfds.build.cluster import ClusterPlan, Outcome, choose_images_per_chunk
from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.shards import Target
from landmark_triplets_tfds.common.checked_files import load_object, save_object
from landmark_triplets_tfds.common.file_access import is_remote
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.triplets.examples import IMAGES

# Reading ahead within a chunk of images pays where files are slow to open. On a local disk it costs more than it saves.
_NUM_REMOTE_READERS = 16


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

    def _make_splits(self, target: Target) -> None:
        from landmark_triplets_tfds.build import beam_pipeline

        plans = {job.split: (self._plan_for_workers(job, target), str(self._outcome_path(job))) for job in self.jobs}
        with self.report.stage("run_pipeline"):
            beam_pipeline.run_pipeline(plans, target.beam_runner, target.beam_options)
        for job in self.jobs:
            outcome: Outcome = load_object(str(self._outcome_path(job)))
            job.redrawn, job.shards = outcome.redrawn, outcome.shards
            num_images = len(job.rows) + len(outcome.redrawn.difference(job.rows.tolist()))
            self.report.num_images_read += num_images
            self.report.num_thumbnails_made += num_images
            job.counts.add(outcome.counts)
            errors = outcome.errors()
            self.report.unreadable += job.check_unreadable(errors)
            self._check_examples(job, errors)
            self._note_examples(job, errors)
            self._write_triplets_csv(job)
        self._clean_up()

    def _plan_for_workers(self, job: SplitJob, target: Target) -> ClusterPlan:
        table, whole, spec = job.images.table, self._selection.whole, job.planned.spec
        kept_rows_path = image_ids_path = examples_path = None
        if job.split in self._selection.unlabeled:  # listed once, here, and not by every worker
            image_ids_path = self._save(f"beam_image_ids-{job.split}", table.image_ids)
        elif table is not whole:
            kept_rows_path = self._save("beam_kept_rows", np.isin(whole.image_ids, table.image_ids))
        if self._lists_triplets(job):
            self._examples_path(job).mkdir(parents=True, exist_ok=True)
            examples_path = str(self._examples_path(job))
        return ClusterPlan(
            source=job.images.source.share(self._data_dir, elsewhere=True),
            table_sha256=table.fingerprint,
            kept_rows_path=kept_rows_path,
            image_ids_path=image_ids_path,
            spec=self._save(f"beam_triplets-{job.split}", spec) if isinstance(spec, np.ndarray) else spec,
            thumbnail_spec=self._thumbnail_spec,
            order_path=self._save(f"beam_order-{job.split}", job.order),
            num_examples=job.num_examples,
            num_shards=job.num_shards,
            template=target.template_of(job.split),
            file_format=target.file_format,
            images_per_chunk=choose_images_per_chunk(table.num_images),
            num_readers=self._num_readers(),
            examples_path=examples_path,
        )

    def _note_examples(self, job: SplitJob, errors: Mapping[int, UnreadableImageError]) -> None:
        """Notes which examples were made, where somebody will ask for it."""
        if self._lists_triplets(job):
            made = [load_object(path) for path in map(str, self._examples_path(job).iterdir())]
            rows = np.full((job.num_examples, job.planned.plan.kind.num_images), -1, dtype=np.int32)
            for examples in made:
                rows[examples[:, 0]] = examples[:, 1:]
            job.set_examples(rows, rows[:, 0] >= 0)
            self._examples_path(job).rmtree()
        elif job.planned.plan.kind is IMAGES:
            rows = job.planned.plan.rows(0, job.num_examples).astype(np.int32)
            job.set_examples(rows, ~np.isin(rows[:, 0], list(errors)))

    def workers_and_readers(self) -> dict[str, int | None]:
        return {"workers": None, "readers": self._num_readers()}

    def _num_readers(self) -> int:
        return self.options.readers or (_NUM_REMOTE_READERS if self.source.is_remote else 1)

    def _outcome_path(self, job: SplitJob) -> epath.Path:
        return self._data_dir / f"beam_outcome-{job.split}"

    def _examples_path(self, job: SplitJob) -> epath.Path:
        return self._data_dir / f"beam_examples-{job.split}"

    def _save(self, name: str, array: npt.NDArray[np.generic]) -> str:
        """Writes an array for the workers, once, and returns where it is."""
        path = self._data_dir / name
        if path not in self._saved:
            save_object(path, array)
            self._saved.append(path)
        return str(path)

    def _clean_up(self) -> None:
        """Removes what must not be published: files for the workers, and shards left half written by dead ones."""
        # Not with `glob`, which takes a folder such as run[1] for a pattern too.
        left = [
            path for path in self._data_dir.iterdir() if path.suffix == ".index" or path.name.startswith("incomplete.")
        ]
        for path in (*map(self._outcome_path, self.jobs), *self._saved, *left):
            path.unlink(missing_ok=True)
