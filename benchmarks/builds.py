"""Builds of this package's datasets, timed: in this process, after imports, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import functools
import io
import os
from pathlib import Path
from typing import Any
from unittest import mock

from etils import epath
import numpy as np

from benchmarks.corpus import image_path
from benchmarks.harness import Measurement, Stopwatch, temporary_folder
from landmark_triplets_tfds.competition.tables import LandmarkTable, read_landmark_table
from landmark_triplets_tfds.triplets.examples import TRIPLETS
from landmark_triplets_tfds.triplets.plan import make_plan
from landmark_triplets_tfds.triplets.sampling import Rows

DATASET, IMAGES = TRIPLETS.dataset, TRIPLETS.image_features


@functools.cache
def tfds() -> Any:
    """Imports TFDS and this package's builders, which registers them."""
    from absl import logging
    import tensorflow  # noqa: F401  # TFDS imports it lazily: that is no part of a build's time
    import tensorflow_datasets

    import landmark_triplets_tfds  # noqa: F401

    logging.set_verbosity(logging.ERROR)  # TFDS logs what the tables say anyway
    tensorflow_datasets.disable_progress_bar()
    return tensorflow_datasets


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
    bank: Path | None = None,
    file_format: str | None = None,
    beam_options: Sequence[str] | None = None,
    **download_options: Any,
) -> tuple[Measurement, Any]:
    """Builds a dataset.

    Args:
      config: name of a config, or a config object.
      manual_dir: the competition's files.
      data_dir: where to; a new folder if the build is to be timed.
      dataset: name of the builder that the config is of.
      workers: that encode; None: the package's default.
      bank: folder of the thumbnail bank; None: no bank.
      file_format: TFDS's name of it; None: TFDS's default.
      beam_options: as on the command line, without dashes, for a build through Beam; None: a local build.
      **download_options: more fields of TFDS's DownloadConfig.

    Returns:
      The measurement of ``download_and_prepare``, whose count is that of the train split's examples, and the builder.
    """
    builder = tfds().builder(dataset, config=config, data_dir=data_dir, file_format=file_format)
    download_config = tfds().download.DownloadConfig(manual_dir=os.fspath(manual_dir), **download_options)
    if beam_options is not None:
        from apache_beam.options.pipeline_options import PipelineOptions

        download_config.beam_options = PipelineOptions([f"--{option}" for option in beam_options])
    options = {"LANDMARK_TRIPLETS_WORKERS": str(workers or ""), "LANDMARK_TRIPLETS_BANK": str(bank or "off")}
    with mock.patch.dict(os.environ, options), quiet(), Stopwatch() as watch:
        builder.download_and_prepare(download_config=download_config)
    return watch.measurement(builder.info.splits["train"].num_examples), builder


def first_build(config: Any, manual_dir: Path, work: Path, *, workers: int | None = None) -> Measurement:
    """Builds a dataset as a user would for the first time: nothing prepared, an empty bank."""
    with temporary_folder(work) as folder:
        return build(config, manual_dir, Path(folder, "data"), workers=workers, bank=Path(folder, "bank"))[0]


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
