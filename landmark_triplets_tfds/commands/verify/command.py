"""The command `verify`: is this dataset whole, and is it what a build makes of these files?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.arguments import flag, json_flag, option, positional

if TYPE_CHECKING:
    from landmark_triplets_tfds.commands.verify.verify import Verification


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verify:
    """Check a built dataset, record by record.

    Reads every record: its checksum, its features, its images, the rules of triplets, and whether records, counts and
    recorded fields fit together. With --manual_dir, also against the competition's files: ids and landmarks, whether
    every planned record is there or accounted for, and a sample of images made again. Prints the sha256 of each shard
    as `sha256sum` does.

    Examples:
      landmark-triplets verify --data_dir ~/tfds landmark_triplets/128px
      landmark-triplets verify --data_dir ~/tfds landmark_triplets/128px --manual_dir ~/landmarks
      landmark-triplets verify ~/tfds/landmark_triplets/128px/1.0.0 --sha256 published.txt
    """

    dataset: str = positional(
        "landmark_triplets/128px (its newest version), landmark_triplets/128px:1.0.0, or the folder of a version.",
        metavar="DATASET",
    )
    data_dir: str | None = option(
        "Folder that the dataset was built into (default: ~/tensorflow_datasets).", default=None, metavar="DIR"
    )
    manual_dir: str | None = option(
        "Folder with the competition's files, to compare with (default: none).", default=None, metavar="DIR"
    )
    exclude_landmarks: str | None = option(
        "With --manual_dir: the list that the config named, if it has one; the dataset records its hash alone.",
        default=None,
        metavar="FILE",
    )
    sample: int = option("Images made again with --manual_dir (default: 500).", default=500, metavar="N")
    seed: int = option("Of the choice of these (default: 0).", default=0, metavar="N")
    sha256: str | None = option(
        "List of sha256 hashes to compare with, as `sha256sum` or this command prints it.", default=None, metavar="FILE"
    )
    workers: int | None = option("Processes that read (default: one for each usable core).", default=None, metavar="N")
    show_all: bool = flag("Show up to 100 problems of each kind, not 5.")
    json: bool = json_flag()

    def execute(self) -> int:
        from etils import epath

        from landmark_triplets_tfds.commands.verify.prepared import find_version_folder
        from landmark_triplets_tfds.commands.verify.published import read_hashes
        from landmark_triplets_tfds.commands.verify.source import SourceOptions
        from landmark_triplets_tfds.commands.verify.verify import verify
        from landmark_triplets_tfds.errors import CommandError

        for name, value in (("--sample", self.sample), ("--seed", self.seed), ("--workers", self.workers)):
            if value is not None and value < (name == "--workers"):
                raise CommandError(f"{name} must be {int(name == '--workers')} or more, got {value}.")
        source = None
        if self.manual_dir is not None:
            source = SourceOptions(
                manual_dir=epath.Path(self.manual_dir).expanduser(),
                exclude_landmarks=self.exclude_landmarks,
                sample=self.sample,
                seed=self.seed,
            )
        elif self.exclude_landmarks is not None:
            raise CommandError("--exclude_landmarks is of use with --manual_dir only.")
        published = None if self.sha256 is None else read_hashes(epath.Path(self.sha256).expanduser())
        folder = find_version_folder(self.data_dir, self.dataset)
        verification = verify(folder, source=source, published=published, num_processes=self.workers)
        if self.json:
            console.print_json(verification.as_json())
        else:
            print("\n".join(_describe(verification, self.manual_dir, 100 if self.show_all else 5)))
        return console.FOUND_WRONG if verification.findings.num_problems else console.OK


def _describe(verification: Verification, manual_dir: str | None, num_shown: int) -> list[str]:
    """Returns the lines that are shown."""
    from landmark_triplets_tfds.commands.verify.published import format_hashes

    data, findings = verification.data, verification.findings
    counts = ", ".join(f"{split} {count:,}" for split, count in verification.num_records.items())
    lines = [
        console.styled(data.name, "bold") + f" in {data.folder}",
        f"{counts or 'no'} {data.kind.noun} in {len(data.shards):,} {data.file_format} shards,"
        f" {verification.num_bytes / 1e6:,.1f} MB, read in {verification.seconds:,.1f} s.",
        *format_hashes(verification.hashes),
    ]
    for kind, problems in findings.by_kind().items():
        count = findings.counts[kind]
        lines.append(console.styled(f"{kind.capitalize()}: {count:,} wrong", "red"))
        lines += [f"  {problem}" for problem in problems[:num_shown]]
        if count > num_shown:
            lines.append(f"  ... and {count - min(num_shown, len(problems)):,} more")
    lines += [console.styled(f"Note: {note}", "yellow") for note in findings.notes]
    if findings.num_problems:
        lines.append(console.styled(f"{findings.num_problems:,} problems.", "red"))
    elif manual_dir is None:
        lines.append(
            console.styled("All well", "green") + "; not compared with the competition's files (--manual_dir)."
        )
    else:
        lines.append(console.styled("All well.", "green"))
    return lines
