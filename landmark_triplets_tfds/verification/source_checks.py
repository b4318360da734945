"""A prepared dataset against the competition's files: the table, the plan, and a sample of images made again.

The plan is a function of the table and the recorded fields, so what a build had to make is known without building: with
the unreadable images that its report lists, down to every redraw.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

from etils import epath
import numpy as np

from landmark_triplets_tfds import (
    LandmarkImages,
    LandmarkImagesConfig,
    LandmarkTriplets,
    LandmarkTripletsConfig,
    console,
)
from landmark_triplets_tfds.build_options import BuildOptions
from landmark_triplets_tfds.build_report import IMAGES, TRIPLETS
from landmark_triplets_tfds.builder_config import LandmarkBuilderConfig
from landmark_triplets_tfds.errors import LandmarkTableError
from landmark_triplets_tfds.landmarks import LandmarkTable, format_image_id
from landmark_triplets_tfds.sources import find_source
from landmark_triplets_tfds.split_plan import images_of_split
from landmark_triplets_tfds.table_selection import select_images
from landmark_triplets_tfds.verification.dataset_checks import RecordPlaces
from landmark_triplets_tfds.verification.findings import INFO, TABLE, Findings
from landmark_triplets_tfds.verification.plan_checks import check_plan
from landmark_triplets_tfds.verification.prepared_data import ID_FEATURES, METADATA_NAME, PreparedData
from landmark_triplets_tfds.verification.remade_images import check_images
from landmark_triplets_tfds.verification.shard_checks import Records

_BUILDERS = {TRIPLETS: (LandmarkTriplets, LandmarkTripletsConfig), IMAGES: (LandmarkImages, LandmarkImagesConfig)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What a dataset is compared with.

    Attributes:
      manual_dir: the folder with the competition's files.
      exclude_landmarks: the file that the config named, whose hash alone is recorded; None: not at hand.
      sample: how many distinct images are made again.
      seed: of the choice of these.
    """

    manual_dir: epath.Path
    exclude_landmarks: str | None
    sample: int
    seed: int


def check_against_source(
    data: PreparedData, splits: Mapping[str, Records], options: SourceOptions, findings: Findings
) -> None:
    """Adds what does not fit the competition's files.

    Raises:
      SourceLayoutError, LandmarkTableError, ArchiveError: if these cannot be used.
    """
    build_options = BuildOptions.from_environment()
    source = find_source(options.manual_dir, build_options.bank)
    num_threads = build_options.num_readers(source.is_remote)
    with console.progress_of_listing("Indexing archives", " archives") as advance:
        source.prepare(num_threads, advance)
    config = _recorded_config(data, options, findings)
    if config is None:
        table = source.read_table()
        _check_table(data, {split: (records, table) for split, records in _labeled(splits).items()}, findings)
        return
    selection = select_images(source, config, build_options)
    of_splits = {split: images_of_split(selection, split) for split in splits}
    tables = {split: selection.whole if split in config.splits() else of_splits[split].table for split in splits}
    _check_table(data, {split: (records, tables[split]) for split, records in splits.items()}, findings)
    differing = [
        name for name, fingerprint in selection.fingerprints().items() if data.metadata.get(name) != fingerprint
    ]
    for name in differing:
        findings.add(
            TABLE,
            f"{name} is not that of {options.manual_dir}: the dataset was made from other images, so what a build would"
            " plan is not compared",
            file=METADATA_NAME,
        )
    if not differing:
        check_plan(data, splits, selection, config, findings)
    for images in {id(images): images for images in of_splits.values()}.values():
        check_images(
            data,
            {split: records for split, records in splits.items() if of_splits[split] is images},
            images.source,
            config.thumbnail_spec(),
            options.sample,
            options.seed,
            num_threads,
            findings,
        )


def _labeled(splits: Mapping[str, Records]) -> dict[str, Records]:
    """Returns the splits whose images have landmarks."""
    return {split: records for split, records in splits.items() if (records.landmark_ids >= 0).any()}


def _recorded_config(data: PreparedData, options: SourceOptions, findings: Findings) -> LandmarkBuilderConfig | None:
    """Returns the config that the dataset was built with; None, with a note, if it cannot be made here."""
    builder, config_class = _BUILDERS[data.noun]
    not_compared = "what a build would plan, and images made again, are not compared"
    fields = dict(data.config_fields)
    if not fields:
        findings.note(f"{METADATA_NAME} holds no config: {not_compared}.")
        return None
    if data.version.rpartition(".")[0] != str(builder.VERSION).rpartition(".")[0]:
        findings.note(
            f"It is version {data.version}, and this package makes {builder.VERSION}, with other bytes: {not_compared}."
        )
        return None
    unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(config_class)})
    if unknown:
        findings.note(f"This version of the package does not know the recorded {', '.join(unknown)}: {not_compared}.")
        return None
    files = sorted(name for name, value in fields.items() if str(value).startswith("sha256:"))
    if set(files) - {"exclude_landmarks"}:
        findings.note(f"Of {', '.join(files)} the hash alone is recorded: {not_compared}.")
        return None
    recorded_hash = fields.get("exclude_landmarks")
    if recorded_hash and options.exclude_landmarks is None:
        findings.note(
            f"Landmarks were excluded by a list of which the hash is recorded: {not_compared}. Give the list:"
            " --exclude_landmarks FILE."
        )
        return None
    try:
        config = config_class(
            name=data.config_name,
            **(fields | {"exclude_landmarks": options.exclude_landmarks if recorded_hash else None}),
        )
    except (TypeError, ValueError) as error:
        findings.add(INFO, f"its config is damaged: {error}", file=METADATA_NAME)
        return None
    if recorded_hash and (found := config.dataset_fields()["exclude_landmarks"]) != recorded_hash:
        raise LandmarkTableError(
            f"{options.exclude_landmarks} is not the list of landmarks that was excluded: its hash is {found}, and"
            f" {recorded_hash} is recorded."
        )
    return config


def _check_table(data: PreparedData, splits: Mapping[str, tuple[Records, LandmarkTable]], findings: Findings) -> None:
    """Each image is in the table of its split, with the landmark that the records say."""
    names = ID_FEATURES[data.noun]
    for records, table in splits.values():
        order = np.argsort(table.image_ids)
        sorted_ids = table.image_ids[order]
        places = RecordPlaces(data, records)
        at = np.minimum(np.searchsorted(sorted_ids, records.image_ids), len(sorted_ids) - 1)
        known = sorted_ids[at] == records.image_ids
        landmarks = table.landmark_ids[order[at]]
        for number, column in np.argwhere(~known | (landmarks != records.landmark_ids)).tolist():
            name = f"{names[column]} {format_image_id(records.image_ids[number, column])}"
            message = (
                f"{name} shows landmark {landmarks[number, column]} by the table, and"
                f" {records.landmark_ids[number, column]} here"
                if known[number, column]
                else f"{name} is not in the table"
            )
            findings.add(TABLE, message, **places.place(number))
