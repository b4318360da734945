"""The file of mined triplets, which the config field ``triplets_file`` reads: CSV or Parquet, by its suffix.

The columns ``anchor_id``, ``positive_id`` and ``negative_id`` are what that field asks for. The two similarities are
there to look at, and to select by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etils import epath

from landmark_triplets_tfds.errors import CommandError
from landmark_triplets_tfds.landmarks import format_image_id

if TYPE_CHECKING:
    import pandas as pd

    from landmark_triplets_tfds.hard_triplets import MinedTriplets

SUFFIXES = (".csv", ".parquet")


def check_output(path: epath.Path) -> None:
    """Raises CommandError, before there is anything to lose, if a file of triplets cannot be written there."""
    if path.suffix not in SUFFIXES:
        raise CommandError(f"{path} must end with {' or '.join(SUFFIXES)}, which says how it is written.")
    if path.is_dir():
        raise CommandError(f"{path} is a folder. Name a file in it.")
    if not path.parent.is_dir():
        raise CommandError(f"The folder {path.parent} does not exist. Make it first.")


def write_triplets(triplets: MinedTriplets, path: epath.Path) -> None:
    """Writes the triplets in their order; a file that is there already is replaced once the new one is complete.

    Raises:
      CommandError: if the path does not fit.
    """
    check_output(path)
    frame = _to_frame(triplets)
    part = path.parent / f".{path.name}.part"
    try:
        with part.open("wb") as file:
            if path.suffix == ".csv":
                frame.to_csv(file, index=False, float_format="%.6f", lineterminator="\n")
            else:
                frame.to_parquet(file, index=False)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _to_frame(triplets: MinedTriplets) -> pd.DataFrame:
    import pandas as pd

    names = [[format_image_id(image_id) for image_id in column] for column in triplets.image_ids.T.tolist()]
    return pd.DataFrame(
        {
            "anchor_id": names[0],
            "positive_id": names[1],
            "negative_id": names[2],
            "positive_similarity": triplets.similarities[:, 0],
            "negative_similarity": triplets.similarities[:, 1],
        }
    )
