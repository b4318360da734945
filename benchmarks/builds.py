"""Builds of this package's datasets, timed: in this process, after imports, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import io
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

from etils import epath
import numpy as np

from benchmarks.corpus import image_path
from benchmarks.harness import Measurement, NotAvailableError, Stopwatch
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.competition.tables import LandmarkTable, read_landmark_table
from landmark_triplets_tfds.triplets.sampling import Rows, SamplingSpec, TripletSampler

DATASET = "landmark_triplets"


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


def has_bank() -> bool:
    """Tells whether the installed package keeps thumbnails between builds."""
    return any(field.name == "bank" for field in dataclasses.fields(BuildOptions))


def find_config(config: Any, dataset: str = DATASET) -> Any:
    """Returns a named config of a dataset, or a config object as it is.

    Raises:
      NotAvailableError: if the installed package has no config of that name.
    """
    if not isinstance(config, str):
        return config
    configs = {each.name: each for each in tfds().builder_cls(dataset).BUILDER_CONFIGS}
    if config not in configs:
        raise NotAvailableError(f"the installed package has no config {config}")
    return configs[config]


@contextlib.contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Sets environment variables for a while; those given as None are unset."""
    before = {name: os.environ.get(name) for name in variables}

    def put(values: dict[str, str | None]) -> None:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    put(variables)
    try:
        yield
    finally:
        put(before)


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Returns a context manager that swallows what TFDS and the builders say on stdout."""
    return contextlib.redirect_stdout(io.StringIO())


@contextlib.contextmanager
def temporary_folder(work: Path | None) -> Iterator[Path]:
    """Gives a new folder below ``work`` (None: the system's temporary folder) that is removed afterwards."""
    if work:
        work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="benchmark.", dir=work))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(
    config: Any,
    corpus: Path,
    data_dir: Path,
    *,
    dataset: str = DATASET,
    workers: int | None = None,
    bank: Path | None = None,
    file_format: str | None = None,
    num_shards: int | None = None,
    max_examples: int | None = None,
    beam_options: Sequence[str] | None = None,
) -> tuple[Measurement, Any]:
    """Builds a dataset.

    Args:
      config: name of a config, or a config object.
      corpus: the competition's files.
      data_dir: where to; a new folder if the build is to be timed.
      dataset: name of the builder that the config is of.
      workers: encoding threads; None: the package's default.
      bank: folder of the thumbnail bank; None: no bank. Without effect where the package has none yet.
      file_format: TFDS's name of it; None: TFDS's default.
      num_shards: None: TFDS's choice.
      max_examples: None: all.
      beam_options: as on the command line, without dashes, for a build through Beam; None: a local build.

    Returns:
      The measurement of ``download_and_prepare``, whose count is that of the train split's examples, and the builder.

    Raises:
      NotAvailableError: if the installed package lacks the config.
    """
    builder = tfds().builder(dataset, config=find_config(config, dataset), data_dir=data_dir, file_format=file_format)
    download_config = tfds().download.DownloadConfig(
        manual_dir=os.fspath(corpus), num_shards=num_shards, max_examples_per_split=max_examples
    )
    if beam_options is not None:
        from apache_beam.options.pipeline_options import PipelineOptions

        download_config.beam_options = PipelineOptions([f"--{option}" for option in beam_options])
    variables = {"LANDMARK_TRIPLETS_WORKERS": str(workers) if workers else None}
    if has_bank():
        variables["LANDMARK_TRIPLETS_BANK"] = os.fspath(bank) if bank else "off"
    with environment(**variables), quiet(), Stopwatch() as watch:
        builder.download_and_prepare(download_config=download_config)
    return watch.measurement(builder.info.splits["train"].num_examples), builder


def timed_build(config: Any, corpus: Path, work: Path | None, *, workers: int | None = None) -> Measurement:
    """Builds a dataset as a user would for the first time: nothing prepared, nothing in the bank."""
    with temporary_folder(work) as folder:
        return build(config, corpus, folder / "data", workers=workers, bank=folder / "bank")[0]


def plan(config: Any, corpus: Path) -> tuple[LandmarkTable, Rows]:
    """Returns the table of a corpus and the triplets of a config, int64[n, 3] rows of it."""
    config = find_config(config)
    table = read_landmark_table(epath.Path(corpus / "train.csv"))
    spec = SamplingSpec(
        images_per_landmark=config.images_per_landmark,
        triplets_per_anchor=config.triplets_per_anchor,
        positive_may_be_anchor=config.positive_may_be_anchor,
        seed=config.seed,
    )
    return table, TripletSampler(table, spec).plan()


def paths_of(table: LandmarkTable, rows: Rows, corpus: Path) -> list[str]:
    """Returns the files of some rows of the table, in their order."""
    return [image_path(corpus, f"{image_id:016x}") for image_id in table.image_ids[rows.ravel()].tolist()]


def distinct_files(config: Any, corpus: Path) -> list[str]:
    """Returns the files that a build of the config reads, each once."""
    table, rows = plan(config, corpus)
    return paths_of(table, np.unique(rows), corpus)


def read_all(corpus: Path) -> tuple[int, int]:
    """Reads all images once, so that later reads come from the page cache; returns their number and bytes."""
    sizes = [path.stat().st_size for path in corpus.glob("train/*/*/*/*.jpg") if path.read_bytes()]
    return len(sizes), sum(sizes)
