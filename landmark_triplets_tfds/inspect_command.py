"""The command `inspect`: is this copy of the competition usable?"""

from __future__ import annotations

import dataclasses

from landmark_triplets_tfds.arguments import json_flag, option
from landmark_triplets_tfds.console import OK


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect:
    """Tell whether a copy of the competition is usable.

    Looks at the layout, at the table of images, and at a random sample of the images.

    Example:
      landmark-triplets inspect --manual_dir ~/landmarks
    """

    manual_dir: str = option("Folder with the competition's files: extracted, as zip, or as tars.", metavar="DIR")
    sample: int = option("Images to look at (default: 1000).", default=1000, metavar="N")
    seed: int = option("Of the random sample (default: 0).", default=0, metavar="N")
    json: bool = json_flag()

    def execute(self) -> int:
        from etils import epath

        from landmark_triplets_tfds.sources import find_source

        table = find_source(epath.Path(self.manual_dir).expanduser()).read_table()
        print(f"{table.num_images:,} images of {table.num_landmarks:,} landmarks")
        return OK
