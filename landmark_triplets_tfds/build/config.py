"""What the configs of both builders share: the fields that decide which images there are and what they look like."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import hashlib
import os
import re
from typing import Any, ClassVar, TypeVar

from etils import epath
import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from landmark_triplets_tfds.common.checks import check_choice, check_int, check_number, did_you_mean, shorten
from landmark_triplets_tfds.common.file_access import decode_text, read_file
from landmark_triplets_tfds.competition.tables import LANDMARK_ID
from landmark_triplets_tfds.errors import LandmarkTableError
from landmark_triplets_tfds.thumbnails.resizing import FITS
from landmark_triplets_tfds.thumbnails.thumbnail import RESIZE_METHODS, ThumbnailSpec
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION
from landmark_triplets_tfds.triplets.examples import ExampleKind
from landmark_triplets_tfds.triplets.plan import SplitSpec

_NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")  # it becomes the name of a folder
_MAX_LIST_BYTES = 64 << 20  # some millions of ids


@dataclasses.dataclass(eq=False, kw_only=True)
class LandmarkBuilderConfig(tfds.core.BuilderConfig):
    """Fields of both builders. Each decides the dataset's bytes.

    Attributes:
      resolution: side of the square stored images, px, 8..2048.
      images_per_landmark: the sample: the first n images of each landmark in train.csv order; None: all.
      jpeg_quality: 1..100.
      resize_method: 'nearest' takes one source pixel per stored pixel, as the notebook did, and aliases; 'area'
        averages all source pixels that a stored pixel covers.
      fit: how a photograph becomes square: 'squash' ignores the aspect ratio, as the notebook did; 'crop' takes the
        centred square; 'pad' adds black bars.
      missing_images: 'error' stops the build when many images of the table have no file; 'drop' leaves them out of the
        table before sampling.
      validation_percent: about this share of the landmarks, 0..99, goes with all its images to a split `validation`:
        the same landmarks in every dataset (see `holdout`). 0: everything is in `train`.
      exclude_landmarks: path of a text file with a landmark_id per line ('#' begins a comment); these landmarks are
        left out. What is recorded with the dataset is a hash of the ids, not the path.

    Raises:
      ValueError: when a field is of another type or out of its range, or is none.
    """

    # What an example of the dataset is.
    kind: ClassVar[ExampleKind]

    name: str = ""
    description: str | None = None
    resolution: int = 128
    images_per_landmark: int | None = 2
    jpeg_quality: int = 94
    resize_method: str = "nearest"
    fit: str = "squash"
    missing_images: str = "error"
    validation_percent: float = 0
    exclude_landmarks: str | None = None

    def __new__(cls, **fields: object) -> Any:
        """Checks the names of the fields, which `tfds build --config` takes from a line of JSON."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"{cls.kind.dataset} has no field {name!r}.{hint} There are {', '.join(known)}.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME_PATTERN.fullmatch(self.name):
            hint = "" if self.name else '; a config needs a name, such as "name": "mine"'
            raise ValueError(f"name must be letters, digits, '_', '.' and '-', got {self.name!r}{hint}.")
        # What the checks return is kept: it can be recorded as JSON, also of a number of NumPy's.
        self.resolution = check_int("resolution", self.resolution, 8, 2048, "px")
        if self.images_per_landmark is not None:
            self.images_per_landmark = check_int(
                "images_per_landmark", self.images_per_landmark, 1, 2**31 - 1, "(or None for all)"
            )
        self.jpeg_quality = check_int("jpeg_quality", self.jpeg_quality, 1, 100)
        check_choice("resize_method", self.resize_method, RESIZE_METHODS)
        check_choice("fit", self.fit, FITS)
        check_choice("missing_images", self.missing_images, ("error", "drop"))
        self.validation_percent = check_number("validation_percent", self.validation_percent, 0, 99)
        is_path = isinstance(self.exclude_landmarks, str) and self.exclude_landmarks
        if self.exclude_landmarks is not None and not is_path:
            raise ValueError(f"exclude_landmarks must be the path of a text file, got {self.exclude_landmarks!r}.")
        if self.description is not None and not isinstance(self.description, str):
            raise ValueError(f"description must be a text, got {self.description!r}.")
        if not self.description:
            self.description = self.describe()

    def splits(self) -> tuple[str, ...]:
        """Returns the names of the splits that the images in the table are divided into."""
        return (TRAIN, VALIDATION) if self.validation_percent else (TRAIN,)

    def unlabeled_folders(self) -> tuple[str, ...]:
        """Returns which folders of images without labels become splits of the same names, where they are there."""
        return ()

    def example_spec(self, split: str) -> SplitSpec:
        """Returns what decides which examples a split is made of."""
        raise NotImplementedError

    def describe(self) -> str:
        """Returns the description that TFDS shows, from the fields."""
        raise NotImplementedError

    def dataset_fields(self, *, omit_missing_files: bool = False) -> dict[str, Any]:
        """Returns the fields that decide the dataset's bytes, ready for JSON; files by a hash of their content.

        Args:
          omit_missing_files: leaves out fields that name a file that is not there, as on a machine that only trains.

        Raises:
          LandmarkTableError, TripletsFileError: if such a file is wrong.
          OSError: if it cannot be read.
        """
        own = {field.name for field in dataclasses.fields(self)}
        inherited = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
        fields = {name: getattr(self, name) for name in sorted(own - inherited)}
        for name, hash_content in self.file_fields().items():
            if fields[name] is None:
                continue
            try:
                fields[name] = hash_content()
            except FileNotFoundError:
                if not omit_missing_files:
                    raise
                del fields[name]
        return fields

    def file_fields(self) -> dict[str, Callable[[], str]]:
        """Returns the fields that name files, with functions that hash what is in them."""
        return {"exclude_landmarks": self._hash_excluded_landmarks}

    def _hash_excluded_landmarks(self) -> str:
        ids = ",".join(map(str, self.excluded_landmarks().tolist()))
        return f"sha256:{hashlib.sha256(ids.encode()).hexdigest()}"

    def excluded_landmarks(self) -> npt.NDArray[np.int64]:
        """Returns the ids in the file `exclude_landmarks`, ascending, each once; empty without one.

        Raises:
          LandmarkTableError: with file and line, if a line is no landmark_id; if there is none, or the file cannot be
            read.
          FileNotFoundError: if there is no such file.
        """
        if self.exclude_landmarks is None:
            return np.zeros(0, dtype=np.int64)
        path = os.fspath(epath.Path(self.exclude_landmarks).expanduser())
        expected = "exclude_landmarks must name a text file with a landmark_id per line."
        try:
            lines = decode_text(read_file(path, _MAX_LIST_BYTES)).splitlines()
        except FileNotFoundError:
            raise FileNotFoundError(f"There is no file {path}. {expected}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise LandmarkTableError(f"{path} cannot be read ({error}). {expected}") from None
        ids = set()
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            if not LANDMARK_ID.pattern.fullmatch(text):
                raise LandmarkTableError(
                    f"{path}, line {number}: expected one landmark_id, {LANDMARK_ID.rule}, got {shorten(line)}."
                )
            ids.add(int(text))
        if not ids:
            raise LandmarkTableError(f"{path} holds no landmark_id. {expected} To exclude none, leave the field out.")
        return np.array(sorted(ids), dtype=np.int64)

    def thumbnail_spec(self) -> ThumbnailSpec:
        """Returns what decides the bytes of a stored image."""
        return ThumbnailSpec(
            resolution=self.resolution,
            jpeg_quality=self.jpeg_quality,
            resize_method=self.resize_method,
            fit=self.fit,
        )

    def describe_images(self) -> str:
        """Returns the part of a description that says what the stored images look like."""
        pixels = "Antialiased, " if self.resize_method == "area" else ""
        return f"{pixels}{self.resolution} x {self.resolution} px"

    def describe_holdout(self) -> str:
        """Returns the part of a description that says what is held out."""
        return f"; {self.validation_percent:g} % of the landmarks held out" if self.validation_percent else ""


_AnyConfig = TypeVar("_AnyConfig", bound=LandmarkBuilderConfig)

_SAMPLES = {"": 2, "_1per": 1, "_8per": 8, "_all": None}
_HOLDOUT_PERCENT = 10


def named_configs(config_class: type[_AnyConfig]) -> list[_AnyConfig]:
    """Returns the configs that can be asked for by name, the same names in both builders."""
    choices: list[tuple[int, str, str, float]] = [
        *((resolution, "nearest", suffix, 0) for resolution in (64, 128, 256, 512) for suffix in _SAMPLES),
        *((resolution, "area", suffix, 0) for resolution in (128, 256, 512) for suffix in ("", "_all")),
        *((resolution, "nearest", suffix, _HOLDOUT_PERCENT) for resolution in (64, 128) for suffix in ("", "_all")),
        *((resolution, "area", suffix, _HOLDOUT_PERCENT) for resolution in (128, 256) for suffix in ("", "_all")),
    ]
    return [
        config_class(
            name=f"{resolution}px"
            + ("_area" if method == "area" else "")
            + suffix
            + (f"_holdout{percent}" if percent else ""),
            resolution=resolution,
            images_per_landmark=_SAMPLES[suffix],
            resize_method=method,
            validation_percent=percent,
        )
        for resolution, method, suffix, percent in choices
    ]
