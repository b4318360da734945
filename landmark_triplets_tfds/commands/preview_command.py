"""The command `preview`: what do the examples look like?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.arguments import json_flag, option, positional

if TYPE_CHECKING:
    from landmark_triplets_tfds.commands.datasets import ConfigChoice
    from landmark_triplets_tfds.commands.preview import Examples


SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preview:
    r"""Draw a picture of some examples, built or planned.

    Triplets are shown in rows of anchor, positive and negative, single images in rows of one landmark each. With
    --manual_dir, the picture shows what a build would make, before it is built.

    Examples:
      landmark-triplets preview --data_dir ~/tfds landmark_triplets/128px
      landmark-triplets preview --manual_dir ~/landmarks landmark_triplets/128px_area
      landmark-triplets preview --manual_dir ~/landmarks landmark_triplets \
        --config '{"name": "96px_crop", "resolution": 96, "fit": "crop"}'
    """

    dataset: str = positional(
        "landmark_triplets/128px or landmark_images/128px_all; of a built one also its version or folder, as verify"
        " takes it.",
        metavar="DATASET",
    )
    data_dir: str | None = option(
        "Folder that the dataset was built into (default: ~/tensorflow_datasets).", default=None, metavar="DIR"
    )
    manual_dir: str | None = option(
        "Folder with the competition's files: show what a build would make of them.", default=None, metavar="DIR"
    )
    config: str | None = option(
        "With --manual_dir: the name of a config or the fields of your own in JSON, as `tfds build --config` takes it.",
        default=None,
        metavar="JSON",
    )
    split: str = option("Split to choose from (default: train).", default="train", metavar="SPLIT")
    num: int = option("Rows (default: 6).", default=6, metavar="N")
    seed: int = option("Of the random choice; another one shows other examples (default: 0).", default=0, metavar="N")
    out: str | None = option(
        "File to write, .png, .jpg or .webp (default: triplets.png or images.png, here).", default=None, metavar="FILE"
    )
    json: bool = json_flag()

    def execute(self) -> int:
        from landmark_triplets_tfds.build.report import TRIPLETS
        from landmark_triplets_tfds.commands.preview import choose_examples, describe_example
        from landmark_triplets_tfds.errors import CommandError
        from landmark_triplets_tfds.training.show import draw_rows

        if not 1 <= self.num <= 100:
            raise CommandError(f"--num must be between 1 and 100, got {self.num}.")
        if self.seed < 0:
            raise CommandError(f"--seed must be 0 or more, got {self.seed}.")
        path = _check_out(self.out)
        examples = self._find_examples()
        rows = choose_examples(examples, self.num, self.seed)
        path = path or f"{examples.noun}.png"
        picture = draw_rows(rows, title=self._describe(examples, len(rows)))
        picture.save(path, quality=92)
        chosen = [[describe_example(example) for example in row] for row in rows]
        if self.json:
            console.print_json(
                {
                    "schema_version": SCHEMA_VERSION,
                    "dataset": examples.name,
                    "split": self.split,
                    "seed": self.seed,
                    "out": str(path),
                }
                | {"num_examples": examples.num_examples, "notes": examples.notes}
                | {examples.noun: [example for row in chosen for example in row]}
            )
            return console.OK
        for note in examples.notes[:10]:
            print(console.styled(f"Note: {note}", "yellow"))
        what = "triplets" if examples.noun == TRIPLETS else "landmarks"
        print(f"Wrote {path}: {len(rows):,} {what} of {examples.name}, {picture.width} x {picture.height} px.")
        return console.OK

    def _find_examples(self) -> Examples:
        from etils import epath

        from landmark_triplets_tfds.commands.preview import PlannedExamples, PreparedExamples
        from landmark_triplets_tfds.commands.verify.prepared import find_version_folder
        from landmark_triplets_tfds.errors import CommandError

        if self.manual_dir is None:
            if self.config is not None:
                raise CommandError("--config is of use with --manual_dir; a built dataset is named DATASET/CONFIG.")
            return PreparedExamples(find_version_folder(self.data_dir, self.dataset), self.split)
        if self.data_dir is not None:
            raise CommandError("Give either --data_dir, to see what is built, or --manual_dir, to see what would be.")
        choice = _choose_config(self.dataset, self.config)
        return PlannedExamples(epath.Path(self.manual_dir).expanduser(), choice, self.split)

    def _describe(self, examples: Examples, num_rows: int) -> str:
        would = " (not built)" if self.manual_dir is not None else ""
        return f"{examples.name}{would}, {self.split}: {examples.num_examples:,} {examples.noun}"


def _choose_config(dataset: str, config: str | None) -> ConfigChoice:
    """Returns the config that ``landmark_triplets/128px``, or ``landmark_triplets`` with ``--config``, means."""
    from landmark_triplets_tfds.commands.datasets import BUILDERS, find_config
    from landmark_triplets_tfds.errors import CommandError

    dataset, _, name = dataset.strip("/").partition("/")
    name = name.partition(":")[0]
    if dataset not in BUILDERS:
        raise CommandError(f"There is no dataset {dataset!r}; there are {' and '.join(BUILDERS)}.")
    if name and config is not None:
        raise CommandError(f"Name the config once: either {dataset}/{name} or --config.")
    return find_config(config or name or BUILDERS[dataset].DEFAULT_BUILDER_CONFIG_NAME, dataset)


def _check_out(out: str | None) -> Any:
    """Returns the path to write to, checked before there is any work; None without one."""
    import pathlib

    from landmark_triplets_tfds.errors import CommandError

    if out is None:
        return None
    path = pathlib.Path(out).expanduser()
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise CommandError(f"--out must end in .png, .jpg or .webp, got {out}.")
    if not path.parent.is_dir():
        raise CommandError(f"--out {out}: there is no folder {path.parent}.")
    return path
