"""Builds of this package's datasets, timed: in this process, after imports, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import functools
import io
import os
from pathlib import Path
import time
from typing import Any
from unittest import mock

from etils import epath
import numpy as np

from benchmarks.corpus import image_path
from benchmarks.harness import Figures, Stopwatch, temporary_folder
from landmark_triplets_tfds.competition.tables import LandmarkTable, read_landmark_table
from landmark_triplets_tfds.triplets.examples import TRIPLETS
from landmark_triplets_tfds.triplets.plan import make_plan
from landmark_triplets_tfds.triplets.sampling import Rows

DATASET, IMAGES = TRIPLETS.dataset, TRIPLETS.image_features


@functools.cache
def tfds() -> Any:
    """Imports TFDS and this package's builders, which registers them."""
    from absl import logging
    import tensorflow_datasets

    import landmark_triplets_tfds  # noqa: F401

    logging.set_verbosity(logging.ERROR)  # TFDS logs what the tables say anyway
    tensorflow_datasets.disable_progress_bar()
    return tensorflow_datasets


class SlowSource:
    """A source of images that takes longer, and notes when it has read which one."""

    def __init__(self, source: Any, seconds: float, log: Path | None):
        self._source, self._seconds, self._log = source, seconds, log

    def read_stamped(self, image_id: int) -> tuple[bytes, tuple[int, int]]:
        found: tuple[bytes, tuple[int, int]] = self._source.read_stamped(image_id)
        time.sleep(self._seconds)
        if self._log is not None:
            with self._log.open("ab", buffering=0) as file:
                file.write(f"{time.time()} {image_id}\n".encode())
        return found

    def share(self, *arguments: Any, **options: Any) -> SlowSource:
        return SlowSource(self._source.share(*arguments, **options), self._seconds, self._log)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # as pickle asks for, before there is a source
            raise AttributeError(name)
        return getattr(self._source, name)


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Returns a context manager that swallows what TFDS and the builders say on stdout."""
    return contextlib.redirect_stdout(io.StringIO())


def build(
    config: Any,
    manual_dir: Path,
    data_dir: Path | str,
    *,
    dataset: str = DATASET,
    workers: int | None = None,
    readers: int | None = None,
    bank: Path | None = None,
    slow_down: float = 0.0,
    log: Path | None = None,
    file_format: str | None = None,
    beam_options: Sequence[str] | None = None,
    **download_options: Any,
) -> tuple[Figures, Any]:
    """Builds a dataset.

    Args:
      config: name of a config, or a config object.
      manual_dir: the competition's files.
      data_dir: where to; a new folder if the build is to be timed.
      dataset: name of the builder that the config is of.
      workers: processes; None: the package's default.
      readers: threads that read; None: the package's default.
      bank: folder of the thumbnail bank; None: no bank.
      slow_down: seconds that reading an image takes longer than it does.
      log: file for the time and id of every image that is read.
      file_format: TFDS's name of it; None: TFDS's default.
      beam_options: as on the command line, without dashes, for a build through Beam; None: a local build.
      **download_options: more fields of TFDS's DownloadConfig.

    Returns:
      The figures of ``download_and_prepare``, whose number is that of the train split's examples, and the builder.
    """
    builder = tfds().builder(dataset, config=config, data_dir=data_dir, file_format=file_format)
    download_config = tfds().download.DownloadConfig(manual_dir=os.fspath(manual_dir), **download_options)
    if beam_options is not None:
        from apache_beam.options.pipeline_options import PipelineOptions

        download_config.beam_options = PipelineOptions([f"--{option}" for option in beam_options])
    options = {
        "LANDMARK_TRIPLETS_WORKERS": str(workers or ""),
        "LANDMARK_TRIPLETS_READERS": str(readers or ""),
        "LANDMARK_TRIPLETS_BANK": str(bank or "off"),
    }
    with contextlib.ExitStack() as stack:
        if slow_down or log:
            from landmark_triplets_tfds.build import build as module

            open_copy = vars(module)["open_copy"]
            open_slowly = mock.patch.object(module, "open_copy", lambda *a: SlowSource(open_copy(*a), slow_down, log))
            stack.enter_context(open_slowly)
        stack.enter_context(mock.patch.dict(os.environ, options))
        stack.enter_context(quiet())
        watch = stack.enter_context(Stopwatch())
        builder.download_and_prepare(download_config=download_config)
    return watch.figures(builder.info.splits["train"].num_examples), builder


def first_build(config: Any, manual_dir: Path, work: Path, **options: Any) -> Figures:
    """Builds a dataset as a user would for the first time: nothing prepared, an empty bank; `build` has the options."""
    with temporary_folder(work) as folder:
        return build(config, manual_dir, Path(folder, "data"), bank=Path(folder, "bank"), **options)[0]


def plan(config: Any, manual_dir: Path) -> tuple[LandmarkTable, Rows]:
    """Returns the table of a corpus and the triplets of a config, int64[n, 3] rows of it."""
    if isinstance(config, str):
        config = next(each for each in tfds().builder_cls(DATASET).BUILDER_CONFIGS if each.name == config)
    table = read_landmark_table(epath.Path(manual_dir / "train.csv"))
    examples = make_plan(table, config.example_spec("train"))
    return table, examples.rows(0, examples.num_examples)


def paths_of(table: LandmarkTable, rows: Rows, manual_dir: Path) -> list[str]:
    """Returns the files of some rows of the table, in their order."""
    return [image_path(manual_dir, f"{image_id:016x}") for image_id in table.image_ids[rows.ravel()].tolist()]


def distinct_files(config: Any, manual_dir: Path) -> list[str]:
    """Returns the files that a build of the config reads, each once."""
    table, rows = plan(config, manual_dir)
    return paths_of(table, np.unique(rows), manual_dir)
