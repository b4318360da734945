"""A prepared dataset against the competition's files: the table, the plan, and a sample of images made again.

The plan is a function of the table and the recorded fields, so what a build had to make is known without building: with
the unreadable images that its report lists, down to every redraw. Each planned example is there, or its images explain
why not. To make all images again would take as long as a build, so that is done with a random sample.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
import dataclasses
import itertools
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.hooks import METADATA_NAME
from landmark_triplets_tfds.build.report import REPORT_NAME, versions
from landmark_triplets_tfds.build.splits import PlannedSplit, SplitPlanner, select_images_of
from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.datasets import BUILDERS
from landmark_triplets_tfds.commands.prepared import PreparedData
from landmark_triplets_tfds.commands.verify.records import Findings, Kind, Records, digest_image, find_runs
from landmark_triplets_tfds.common.file_access import OFF
from landmark_triplets_tfds.competition.selection import open_copy
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import LandmarkTableError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import CODEC_DISTRIBUTIONS, ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.plan import plan_in_chunks

_Ids = npt.NDArray[np.uint64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What a dataset is compared with, and how many distinct images are made again."""

    manual_dir: epath.Path
    exclude_landmarks: str | None  # the file that the config named, whose hash alone is recorded
    sample: int
    seed: int


def check_against_source(
    data: PreparedData, splits: Mapping[str, Records], options: SourceOptions, findings: Findings
) -> None:
    """Adds what does not fit the competition's files."""
    # An index that a build trusted says nothing here: one of its own is made, for as long as this process lives.
    build_options = dataclasses.replace(console.build_options(), bank=OFF)
    num_threads = build_options.num_readers_of(options.manual_dir)
    source = open_copy(options.manual_dir, build_options.bank, num_threads)
    config = _recorded_config(data, options, findings)
    if config is None:
        table = source.read_table()
        for records in splits.values():
            if (records.landmark_ids >= 0).any():  # images without labels are in no table
                _check_table(data, records, table, findings)
        return
    selection = select_images_of(config, source, build_options)
    planner = SplitPlanner(selection, config)
    made_from: dict[ImageSource, list[Records]] = {}  # labeled splits share a source
    for split in sorted({*splits}.symmetric_difference(planner.splits())):
        there = "is not there, and a build makes it" if split not in splits else "is there, and no build makes it"
        findings.add(Kind.PLAN, f"split {split} {there}")
    for split, records in splits.items():
        images = planner.images_of(split)
        _check_table(data, records, selection.whole if split in config.splits() else images.table, findings)
        made_from.setdefault(images.source, []).append(records)
    metadata = data.metadata or {}
    differing = [name for name, found in selection.fingerprints().items() if metadata.get(name) != found]
    for name in differing:
        message = f"{name} is not that of {options.manual_dir}: the dataset was made from other images"
        findings.add(Kind.TABLE, message, file=METADATA_NAME)
    if differing or data.report is None:
        why = "it was made from other images" if differing else f"there is no readable {REPORT_NAME}"
        findings.not_checked.append(f"Whether the records are those that a build plans: {why}.")
    else:
        unreadable = [int(image["image_id"], 16) for image in data.report["unreadable_images"]]
        for split in sorted({*splits}.intersection(planner.splits())):
            planned = _plan_ids(planner.plan_split(split), metadata.get("max_examples_per_split"), unreadable)
            _compare_with_plan(data, splits[split], planned, split, findings)
    for image_source, parts in made_from.items():
        _check_images(data, Records.join(parts), image_source, config.thumbnail_spec(), options, num_threads, findings)


def _recorded_config(data: PreparedData, options: SourceOptions, findings: Findings) -> LandmarkBuilderConfig | None:
    """Returns the config that the dataset was built with; None, with a note, if it cannot be made here.

    Raises:
      LandmarkTableError: if the list of excluded landmarks is another one.
    """
    builder = BUILDERS[data.kind.dataset]
    _, name, version = data.name.split("/")
    fields, given = data.config_fields, {"exclude_landmarks": options.exclude_landmarks}
    hashes = {field: value for field, value in fields.items() if str(value).startswith("sha256:")}
    files = {field: given.get(field) for field in hashes}
    missing = sorted(field for field, file in files.items() if file is None)
    config_class = type(builder.BUILDER_CONFIGS[0])
    unknown = sorted(fields.keys() - {field.name for field in dataclasses.fields(config_class)})
    why = ""
    if not fields:
        why = f"{METADATA_NAME} holds no config"
    elif version.rpartition(".")[0] != str(builder.VERSION).rpartition(".")[0]:
        why = f"It is version {version}, and this package makes {builder.VERSION}, with other bytes"
    elif unknown:
        why = f"This version of the package does not know the recorded config ({', '.join(unknown)})"
    elif missing:
        why = f"Of {', '.join(missing)} the hash alone is recorded"
        why += " (give the list: --exclude_landmarks FILE)" if "exclude_landmarks" in missing else ""
    else:
        try:
            config: LandmarkBuilderConfig = config_class(name=name, **(fields | files))
        except (TypeError, ValueError) as error:
            findings.add(Kind.INFO, f"its config is damaged: {error}", file=METADATA_NAME)
            return None
    if why:
        findings.not_checked.append(f"What a build would plan, and images made again. {why}.")
        return None
    for field, recorded in hashes.items():
        if (found := config.dataset_fields()[field]) != recorded:
            raise LandmarkTableError(
                f"{files[field]} is not the list of landmarks that was excluded: its hash is {found}, and {recorded} is"
                " recorded."
            )
    return config


def _check_table(data: PreparedData, records: Records, table: LandmarkTable, findings: Findings) -> None:
    """Each image is in the table of its split, with the landmark that the records say."""
    rows = table.find_rows(records.image_ids)
    landmarks = np.append(table.landmark_ids, -1)[rows]  # -1 for an image that is not there
    for number, column in np.argwhere((rows < 0) | (landmarks != records.landmark_ids)).tolist():
        name = f"{data.kind.id_features[column]} {format_image_id(records.image_ids[number, column])}"
        what = (
            f"shows landmark {landmarks[number, column]} by the table, and {records.landmark_ids[number, column]} here"
        )
        if rows[number, column] < 0:
            what = "is not in the table"
        findings.add(Kind.TABLE, f"{name} {what}", **records.place(number, data))


def _plan_ids(split: PlannedSplit, cap: int | None, unreadable: Sequence[int]) -> _Ids:
    """Returns uint64[n, k]: the images of each example that a build makes of a split, without the unreadable images."""
    table, plan = split.images.table, split.plan
    is_unreadable = np.isin(table.image_ids, np.array(unreadable, dtype=np.uint64))
    parts = []
    for first, rows in plan_in_chunks(plan, plan.num_examples if cap is None else min(cap, plan.num_examples)):
        odd = is_unreadable[rows].any(axis=1)
        parts.append(rows[~odd])
        for i in np.flatnonzero(odd).tolist():
            chosen = plan.choose(first + i, rows[i].tolist(), lambda row: not is_unreadable[row])
            if not isinstance(chosen, str):  # else: why it is left out
                parts.append(np.array([chosen], dtype=np.int64))
    return table.image_ids[np.concatenate(parts)]


def _compare_with_plan(data: PreparedData, records: Records, planned: _Ids, split: str, findings: Findings) -> None:
    """Each planned example is there once, in whatever order, and no other one is."""
    found = records.image_ids
    _, group = np.unique(np.concatenate([planned, found]), axis=0, return_inverse=True)
    group = group.ravel()  # NumPy 2.0 gives it another dimension
    of_planned, of_found = group[: len(planned)], group[len(planned) :]
    num_planned = np.bincount(of_planned, minlength=len(group))
    num_found = np.bincount(of_found, minlength=len(group))
    missing: dict[int, list[_Ids]] = defaultdict(list)  # by key
    for images in planned[num_planned[of_planned] > num_found[of_planned]]:
        missing[int(images[0])].append(images)
    for number in np.flatnonzero(num_found[of_found] > num_planned[of_found]).tolist():
        message = "no build would make it from this table"
        if of_key := missing.get(int(found[number, 0])):
            wanted = of_key.pop(0)
            wrong = int(np.flatnonzero(found[number] != wanted)[0])
            ids = [format_image_id(images[wrong]) for images in (found[number], wanted)]
            message = f"{data.kind.id_features[wrong]} is {ids[0]}, and the plan has {ids[1]}"
        findings.add(Kind.PLAN, message, **records.place(number, data))
    for images in itertools.chain(*missing.values()):
        key = format_image_id(images[0])
        findings.add(Kind.PLAN, f"the example with key {key} is planned for {split}, and neither there nor left out")


def _check_images(
    data: PreparedData,
    records: Records,
    source: ImageSource,
    spec: ThumbnailSpec,
    options: SourceOptions,
    num_threads: int,
    findings: Findings,
) -> None:
    """Adds stored images that are not, byte for byte, what the files of their source give."""
    ids, digests, names = records.image_ids.ravel(), records.digests.ravel(), data.kind.image_features
    order = np.argsort(ids, kind="stable")
    starts, stops = find_runs(ids[order])
    chosen = np.random.default_rng(options.seed).permutation(len(starts))[: options.sample]
    chosen_ids = ids[order[starts[chosen]]].tolist()

    def make_again(image_id: int) -> int | UnreadableImageError:
        try:
            return digest_image(make_thumbnail(source.read(image_id), spec))
        except UnreadableImageError as error:
            return error.without_traceback()

    others = _describe_other_versions(data.report)
    results = console.look_at_images(make_again, chosen_ids, num_threads, "Making images again")
    for run, image_id, result in zip(chosen, chosen_ids, results, strict=True):
        stored, location = order[starts[run] : stops[run]], source.locate(image_id)  # wherever the image is
        if isinstance(result, UnreadableImageError):
            wrong, message = stored, f"{location} is unreadable now ({result.reason})"
        else:
            wrong, message = stored[digests[stored] != result], f"it is not what {location} gives{others}"
        if len(wrong):  # once: images of one id that differ are found where records are compared
            at = int(wrong[0])
            message = f"{names[at % len(names)]}: {message}, in {len(wrong):,} of {len(stored):,} records"
            findings.add(Kind.SOURCE, message, **records.place(at // len(names), data))


def _describe_other_versions(report: dict[str, Any] | None) -> str:
    """Returns which libraries differ from those of the build, as a remark; '' if none is known to."""
    recorded, here = report["versions"] if report else {}, versions()
    names = [name for name in itertools.chain(*CODEC_DISTRIBUTIONS) if name in recorded and name in here]
    differing = [f"{name} {recorded[name]}, here {here[name]}" for name in names if recorded[name] != here[name]]
    return f" (it was built with {'; '.join(differing)}: other versions may give other bytes)" if differing else ""
