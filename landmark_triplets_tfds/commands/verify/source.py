"""A prepared dataset against the competition's files: the table, the plan, and a sample of images made again.

The plan is a function of the table and the recorded fields, so what a build had to make is known without building: with
the unreadable images that its report lists, down to every redraw.

The records against the plan that a build follows: each planned example is there, or its images explain why not.

Stored images made again from their sources: a random sample, because all of them would take as long as a build.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import importlib.metadata
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds import LandmarkImages, LandmarkImagesConfig, LandmarkTriplets, LandmarkTripletsConfig
from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.report import REPORT_NAME
from landmark_triplets_tfds.build.splits import SplitPlanner, select_images_of
from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.verify.findings import INFO, PLAN, SOURCE, TABLE, Findings
from landmark_triplets_tfds.commands.verify.prepared import METADATA_NAME, PreparedData
from landmark_triplets_tfds.commands.verify.shards import Records, digest_image
from landmark_triplets_tfds.competition.source import ImageSource, find_source
from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import LandmarkTableError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import CODEC_DISTRIBUTIONS, ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS
from landmark_triplets_tfds.triplets.plan import ExamplePlan, plan_in_chunks

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
    selection = select_images_of(config, source, build_options)
    planner = SplitPlanner(selection, config)
    of_splits = {split: planner.images_of(split) for split in splits}
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
        check_plan(data, splits, planner, findings)
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
    builder, config_class = _BUILDERS[data.kind]
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
    names = data.kind.id_features
    for records, table in splits.values():
        order = np.argsort(table.image_ids)
        sorted_ids = table.image_ids[order]
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
            findings.add(TABLE, message, **records.place(number, data))


_Ids = npt.NDArray[np.uint64]


def check_plan(
    data: PreparedData,
    splits: Mapping[str, Records],
    planner: SplitPlanner,
    findings: Findings,
) -> None:
    """The records are those that a build makes, with the recorded unreadable images left out."""
    unreadable = (data.report or {}).get("unreadable_images")
    if not isinstance(unreadable, list):
        findings.note(f"Without {REPORT_NAME}, what a build would make is not compared.")
        return
    unreadable_ids = np.array([int(str(image["image_id"]), 16) for image in unreadable], dtype=np.uint64)
    cap = data.metadata.get("max_examples_per_split")
    for split, records in splits.items():
        planned = planner.plan_split(split)
        table = planned.images.table
        is_unreadable = np.isin(table.image_ids, unreadable_ids)
        plan_ids = _plan_ids(table, planned.plan, cap, is_unreadable)
        _compare_with_plan(data, records, plan_ids, split, findings)


def _plan_ids(
    table: LandmarkTable,
    plan: ExamplePlan,
    cap: int | None,
    is_unreadable: npt.NDArray[np.bool_],
) -> _Ids:
    """Returns uint64[n, k]: the images of each example that a build makes of a split."""
    num_examples = plan.num_examples if cap is None else min(cap, plan.num_examples)

    def is_readable(row: int) -> bool:
        return not is_unreadable[row]

    parts: list[_Ids] = []
    for first, rows in plan_in_chunks(plan, num_examples):
        odd = is_unreadable[rows].any(axis=1)
        parts.append(table.image_ids[rows[~odd]])
        for i in np.flatnonzero(odd).tolist():
            chosen = plan.choose(first + i, rows[i].tolist(), is_readable)
            if not isinstance(chosen, str):
                parts.append(table.image_ids[[chosen]])
    return np.concatenate(parts)


def _compare_with_plan(data: PreparedData, records: Records, planned: _Ids, split: str, findings: Findings) -> None:
    found = records.image_ids
    both = np.concatenate([planned, found])
    order = np.lexsort(both.T[::-1])
    # Equal lines stand beside each other; each planned one may be found once.
    is_new = np.concatenate([[True], (both[order][1:] != both[order][:-1]).any(axis=1)])
    group = np.empty(len(both), dtype=np.int64)
    group[order] = np.cumsum(is_new) - 1
    of_planned, of_found = group[: len(planned)], group[len(planned) :]
    num_planned = np.bincount(of_planned, minlength=len(both))
    num_found = np.bincount(of_found, minlength=len(both))
    surplus = np.flatnonzero(num_found[of_found] > num_planned[of_found])
    missing = np.flatnonzero(num_planned[of_planned] > num_found[of_planned])
    surplus_keys = found[surplus, 0]
    for number in surplus.tolist():
        expected = planned[missing[planned[missing, 0] == found[number, 0]]]
        findings.add(PLAN, _describe_surplus(found[number], expected), **records.place(number, data))
    for line in missing[~np.isin(planned[missing, 0], surplus_keys)].tolist():
        key = format_image_id(planned[line, 0])
        findings.add(
            PLAN, f"the example with key {key} is planned for {split}, and neither there nor left out", key=None
        )


def _describe_surplus(found: _Ids, expected: _Ids) -> str:
    if not len(expected) or len(found) == 1:
        return "no build would make it from this table"
    wrong = next(i for i in (1, 2) if found[i] != expected[0, i])
    name = TRIPLETS.id_features[wrong]
    return f"{name} is {format_image_id(found[wrong])}, and the plan has {format_image_id(expected[0, wrong])}"


def check_images(
    data: PreparedData,
    splits: Mapping[str, Records],
    source: ImageSource,
    spec: ThumbnailSpec,
    num_images: int,
    seed: int,
    num_threads: int,
    findings: Findings,
) -> None:
    """Adds images that are not, byte for byte, what their sources give.

    Args:
      data: the dataset.
      splits: its records.
      source: of the files.
      spec: of the stored images.
      num_images: how many distinct ones are made again.
      seed: of the choice of these.
      num_threads: that read and make them.
      findings: are added to.
    """
    everything = Records.join(list(splits.values()))
    ids, digests = everything.image_ids.ravel(), everything.digests.ravel()
    order = np.argsort(ids, kind="stable")
    distinct, starts = np.unique(ids[order], return_index=True)
    stops = np.append(starts[1:], len(ids))
    chosen = np.random.default_rng(seed).permutation(len(distinct))[:num_images]

    def make_again(image_id: int) -> int | UnreadableImageError:
        try:
            return digest_image(make_thumbnail(source.read(image_id), spec))
        except UnreadableImageError as error:
            return error.without_traceback()

    names = data.kind.image_features
    others = _describe_other_versions(data.report)
    with (
        console.progress(len(chosen), "Making images again", " images") as bar,
        ThreadPoolExecutor(num_threads) as pool,
    ):
        for i, result in zip(chosen, pool.map(make_again, distinct[chosen].tolist()), strict=True):
            bar.update()
            stored = order[starts[i] : stops[i]]  # wherever the image is
            location = source.locate(int(distinct[i]))
            if isinstance(result, UnreadableImageError):
                message, wrong = f"{location} is unreadable now ({result.reason})", stored[:1]
            else:
                message, wrong = f"it is not what {location} gives{others}", stored[digests[stored] != result]
                if len(wrong) == len(stored):  # all of them differ: it is the source that has changed, once
                    message, wrong = f"{message}, in any of {len(stored):,} records", wrong[:1]
            for at in wrong.tolist():
                findings.add(SOURCE, f"{names[at % len(names)]}: {message}", **everything.place(at // len(names), data))


def _describe_other_versions(report: dict[str, Any] | None) -> str:
    """Returns which libraries differ from those of the build, as a remark; '' if none is known to."""
    recorded = (report or {}).get("versions")
    if not isinstance(recorded, dict):
        return ""
    differing = []
    for names in CODEC_DISTRIBUTIONS:
        for name in names:
            try:
                here = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
            if name in recorded and recorded[name] != here:
                differing.append(f"{name} {recorded[name]}, here {here}")
    return f" (it was built with {'; '.join(differing)}: other versions may give other bytes)" if differing else ""
