"""The command `verify`: is this dataset whole, and is it what a build makes of these files?"""

from __future__ import annotations

import argparse

from etils import epath

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.verify.prepared import find_version_folder
from landmark_triplets_tfds.commands.verify.published import format_hashes, read_hashes
from landmark_triplets_tfds.commands.verify.source import SourceOptions
from landmark_triplets_tfds.commands.verify.verify import Verification, verify
from landmark_triplets_tfds.errors import CommandError


def run(arguments: argparse.Namespace) -> int:
    """Checks a dataset and shows what was found."""
    for name, lowest in (("sample", 0), ("seed", 0), ("workers", 1)):
        value = getattr(arguments, name)
        if value is not None and value < lowest:
            raise CommandError(f"--{name} must be {lowest} or more, got {value}.")
    source = None
    if arguments.manual_dir is not None:
        source = SourceOptions(
            manual_dir=epath.Path(arguments.manual_dir).expanduser(),
            exclude_landmarks=arguments.exclude_landmarks,
            sample=arguments.sample,
            seed=arguments.seed,
        )
    elif arguments.exclude_landmarks is not None:
        raise CommandError("--exclude_landmarks is of use with --manual_dir only.")
    published = None if arguments.sha256 is None else read_hashes(epath.Path(arguments.sha256).expanduser())
    folder = find_version_folder(arguments.data_dir, arguments.dataset)
    verification = verify(folder, source=source, published=published, num_processes=arguments.workers)
    if arguments.json:
        console.print_json(verification.as_json())
    else:
        print("\n".join(_describe(verification, arguments.manual_dir, 100 if arguments.show_all else 5)))
    return console.FOUND_WRONG if verification.findings.num_problems else console.OK


def _describe(verification: Verification, manual_dir: str | None, num_shown: int) -> list[str]:
    """Returns the lines that are shown."""
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
