"""Is a copy of the competition usable? What is wrong with it, what is good to know, and what to do."""

from __future__ import annotations

from collections import Counter
import dataclasses
import os
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build_options import BuildOptions
from landmark_triplets_tfds.command.inspection_facts import (
    ImageFacts,
    SeenImage,
    SourceFacts,
    TableFacts,
    describe_images,
    describe_source,
    describe_table,
    look_at_image,
)
from landmark_triplets_tfds.console import progress, progress_of_listing
from landmark_triplets_tfds.errors import ArchiveError, LandmarkTableError, SourceLayoutError
from landmark_triplets_tfds.image_sample import choose_rows, look_at
from landmark_triplets_tfds.image_sources.folder_source import FolderSource
from landmark_triplets_tfds.landmarks import LandmarkTable
from landmark_triplets_tfds.sources import ImageSource, find_source
from landmark_triplets_tfds.stand_ins import ADVICE

_NUM_EXAMPLES = 3
_PARTIAL_CONFIG = """'{"name": "128px_partial", "missing_images": "drop"}'"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something to know.

    Attributes:
      kind: a word that programs can go by.
      message: what was found.
      advice: what to do about it, or ''.
    """

    kind: str
    message: str
    advice: str = ""


@dataclasses.dataclass
class Inspection:
    """All that was found out; what could not be looked at is None.

    Attributes:
      problems: what makes a build fail, or lose more than it may.
      notes: what is good to know.
    """

    manual_dir: str
    source: SourceFacts | None = None
    table: TableFacts | None = None
    images: ImageFacts | None = None
    problems: list[Finding] = dataclasses.field(default_factory=list)
    notes: list[Finding] = dataclasses.field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Returns what `--json` prints; docs/command.md documents it."""
        return {"schema_version": 1, "usable": self.usable} | dataclasses.asdict(self)


def inspect_copy(manual_dir: epath.Path, options: BuildOptions, *, num_images: int, seed: int) -> Inspection:
    """Inspects a copy of the competition.

    Args:
      manual_dir: the folder.
      options: how many threads may read, where indexes are kept, and what share of images may be unreadable.
      num_images: to look at.
      seed: of the random sample.

    Returns:
      What was found. Deterministic in the files and the arguments.

    Raises:
      NotADirectoryError, FileNotFoundError: if there is no such folder.
    """
    if not manual_dir.exists():
        raise FileNotFoundError(f"The folder {manual_dir} does not exist.")
    if not manual_dir.is_dir():
        raise NotADirectoryError(
            f"{manual_dir} is a file, not a folder. Name the folder that holds it: --manual_dir {manual_dir.parent}"
        )
    result = Inspection(os.fspath(manual_dir))
    num_readers = options.num_readers("://" in os.fspath(manual_dir))
    try:
        source = find_source(manual_dir, options.bank)
        with progress_of_listing("Indexing archives", " archives") as advance:
            source.prepare(num_readers, advance)
        result.source = describe_source(source)
        table = source.read_table()
    except (SourceLayoutError, LandmarkTableError) as error:
        result.problems.append(_as_finding(error))
        return result
    result.table = describe_table(table)
    _judge_table(result)
    with progress_of_listing("Listing images", " folders") as advance:
        present = source.find_present(table.image_ids, num_readers, advance)
    ids = table.image_ids[present]
    sample = ids[choose_rows(ids, num_images, seed)].tolist()
    with progress(len(sample), "Looking at images", " images") as bar:
        seen = list(look_at(sample, lambda image_id: look_at_image(source, image_id), num_readers, bar.update))
    result.images = describe_images(table.num_images, int(present.sum()), seen)
    _judge_missing(result, source, table, present, options)
    _judge_unreadable(result, source, sample, seen, len(ids), options)
    return result


# --- What it means


def _as_finding(error: Exception) -> Finding:
    """Takes the first paragraph of an error as the message and the rest as advice."""
    message, _, advice = str(error).partition("\n\n")
    if isinstance(error, LandmarkTableError):
        return Finding("table", message, advice or "Fetch the table again, or mend that line.")
    return Finding("archive" if isinstance(error, ArchiveError) else "layout", message, advice.strip())


def _judge_table(result: Inspection) -> None:
    assert result.table is not None  # noqa: S101 - for the type checker
    table = result.table
    num_single = table.num_landmarks_with_single_image
    if table.num_landmarks < 2 or num_single == table.num_landmarks:
        what = "a single landmark" if table.num_landmarks < 2 else "a single image for every landmark"
        result.problems.append(
            Finding("no_triplets", f"The table has {what}, so there are no triplets.", "Use a larger table.")
        )
    elif num_single:
        result.notes.append(
            Finding(
                "single_images",
                f"{num_single:,} landmarks have a single image: they give no triplets of their own, but serve as"
                " negatives.",
            )
        )


def _judge_missing(
    result: Inspection, source: ImageSource, table: LandmarkTable, present: npt.NDArray[np.bool_], options: BuildOptions
) -> None:
    num_missing = int((~present).sum())
    if not num_missing:
        return
    share = num_missing / table.num_images
    missing_id = int(table.image_ids[~present][0])
    message = (
        f"{num_missing:,} of the {table.num_images:,} images have no file ({share:.1%}), such as"
        f" {source.locate(missing_id)}."
    )
    is_problem = num_missing > options.max_num_unreadable(table.num_images)
    if not present.any():
        advice = f"Is {source.table_path} the table of these images? {_describe_neighbours(source, missing_id)}".strip()
    elif is_problem:
        advice = "Fetch the rest; or leave these images out, with a config such as\n  --config " + _PARTIAL_CONFIG
    else:
        advice = "A build goes on without them: it draws other images in their place and lists them in its report."
    (result.problems if is_problem else result.notes).append(Finding("missing", message, advice))


def _describe_neighbours(source: ImageSource, image_id: int) -> str:
    """Says what is where a missing image should be."""
    if not isinstance(source, FolderSource):
        return ""
    folder = epath.Path(source.locate(image_id)).parent
    while not folder.exists():
        folder = folder.parent
    names = sorted(path.name for path in folder.iterdir())[:_NUM_EXAMPLES]
    return f"{folder} holds {', '.join(names)}{', ...' if len(names) == _NUM_EXAMPLES else ''}." if names else ""


def _judge_unreadable(
    result: Inspection,
    source: ImageSource,
    sample: list[int],
    seen: list[SeenImage],
    num_present: int,
    options: BuildOptions,
) -> None:
    broken = [(image_id, each.error) for image_id, each in zip(sample, seen, strict=True) if each.error is not None]
    if not broken:
        return
    share = len(broken) / len(seen)
    reasons = Counter(error.reason for _, error in broken)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    examples = "".join(
        f"\n  {source.locate(image_id)}: {error.reason}{f' ({error.detail})' if error.detail else ''}"
        for image_id, error in broken[:_NUM_EXAMPLES]
    )
    advice = next((ADVICE[error.detail] for _, error in broken if error.detail in ADVICE), "Fetch these files again.")
    # A build counts the unreadable images of its plan; of all images, there are about so many.
    is_problem = share * num_present > options.max_num_unreadable(num_present)
    if not is_problem:
        advice += " A build goes on without them: it draws other images in their place and lists them in its report."
    finding = Finding(
        "unreadable",
        f"{len(broken):,} of {len(seen):,} images looked at ({share:.1%}) are unreadable: {listed}.{examples}",
        advice,
    )
    (result.problems if is_problem else result.notes).append(finding)
