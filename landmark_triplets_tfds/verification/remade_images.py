"""Stored images made again from their sources: a random sample, because all of them would take as long as a build."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
import importlib.metadata
from typing import Any

import numpy as np

from landmark_triplets_tfds import console
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.sources import ImageSource
from landmark_triplets_tfds.thumbnails import CODEC_DISTRIBUTIONS, ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.verification.dataset_checks import RecordPlaces
from landmark_triplets_tfds.verification.findings import SOURCE, Findings
from landmark_triplets_tfds.verification.prepared_data import IMAGE_FEATURES, PreparedData
from landmark_triplets_tfds.verification.record_checks import digest_image
from landmark_triplets_tfds.verification.shard_checks import Records


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
    places = RecordPlaces(data, everything)
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

    names = IMAGE_FEATURES[data.noun]
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
                findings.add(SOURCE, f"{names[at % len(names)]}: {message}", **places.place(at // len(names)))


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
