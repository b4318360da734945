"""The command `mine`: hard triplets, from a file of embeddings to a file for `triplets_file`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import dataclasses
import json
import os
import shlex
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.errors import CommandError, MissingPackageError, NoExampleError
from landmark_triplets_tfds.mining import hard_triplets
from landmark_triplets_tfds.mining.embeddings import Embeddings, landmarks_of, read_embeddings, read_image_ids
from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_index

_QUANTILES = {0: "min", 0.05: "5%", 0.25: "25%", 0.5: "median", 0.75: "75%", 0.95: "95%", 1: "max"}

# Above these shares of anchors, what was asked for does not suit the embeddings, and the summary says so.
_MANY_LEFT_OUT, _MANY_HARDER = 0.05, 0.25


def run(arguments: argparse.Namespace) -> int:
    """Mines triplets, writes them and says what came of it."""
    hard_triplets.check_output(arguments.out)
    fields = [field.name for field in dataclasses.fields(hard_triplets.MiningSpec)]
    try:
        spec = hard_triplets.MiningSpec(**{name: getattr(arguments, name) for name in fields})
    except ValueError as error:
        raise CommandError(f"--{error}") from None
    embeddings, image_ids, landmark_ids, num_without = _read(arguments)
    start = time.perf_counter()
    with progress_bar(len(embeddings), "Mining", " images") as bar:
        try:
            triplets = hard_triplets.mine_triplets(embeddings, image_ids, landmark_ids, spec, bar.update)
        except MissingPackageError as error:
            raise CommandError(f"{error} That is --search exact.") from None
    seconds = time.perf_counter() - start
    if not len(triplets):
        reasons = _list_counts(triplets.num_left_out, ": ")
        raise NoExampleError("\n".join([f"No triplet can be mined. {reasons}.", *_advice(triplets, spec)]))
    hard_triplets.write_triplets(triplets, arguments.out)
    quantiles = np.quantile(triplets.similarities.astype(np.float64), list(_QUANTILES), axis=0).round(6).T.tolist()
    found = {
        "schema_version": 1,
        "out": os.fspath(arguments.out),
        "spec": dataclasses.asdict(spec),
        "search": triplets.search,
        "counts": {
            "num_images": triplets.num_anchors,
            "num_landmarks": triplets.num_landmarks,
            "num_images_without_embedding": num_without,
            "num_triplets": len(triplets),
            "num_left_out": triplets.num_anchors - len(triplets),
            "num_left_out_by_reason": triplets.num_left_out,
            "num_negatives_by_kind": triplets.num_negatives,
            "num_passed_over": triplets.num_passed_over,
        },
        "similarity_quantiles": {
            name: dict(zip(map(str, _QUANTILES), values, strict=True))
            for name, values in zip(("positive", "negative"), quantiles, strict=True)
        },
        "seconds": round(seconds, 3),
    }
    console.show_found(found, _lines(found, _advice(triplets, spec)), as_json=arguments.json)
    return console.OK


def _read(arguments: argparse.Namespace) -> tuple[Embeddings, npt.NDArray[np.uint64], npt.NDArray[np.integer], int]:
    """Returns embeddings, their images' ids and landmarks, and how many images of the table have no embedding."""
    index, ids, manual_dir = arguments.index, arguments.ids, arguments.manual_dir
    if (index is None) == (ids is None) or (ids is None) != (manual_dir is None):
        raise CommandError(
            "say which images the embeddings are of: either with --index DIR (a prepared landmark_images), or with"
            " --ids FILE and --manual_dir DIR."
        )
    if index is not None:
        records = read_image_index(index, arguments.split)
        found = f"split {arguments.split!r} in {index / INDEX_NAME} has {len(records):,} records."
        embeddings = read_embeddings(arguments.embeddings, len(records), found)
        return embeddings, records.image_ids, records.landmark_ids, 0
    image_ids = read_image_ids(ids)
    embeddings = read_embeddings(arguments.embeddings, len(image_ids), f"{ids} holds {len(image_ids):,} ids.")
    source = find_source(manual_dir, console.build_options().bank)
    table = source.read_table()
    num_without = table.num_images - len(image_ids)
    return embeddings, image_ids, landmarks_of(image_ids, table, source.table_path), num_without


def _lines(found: dict[str, Any], advice: list[str]) -> Iterator[str]:
    counts, similarities = found["counts"], found["similarity_quantiles"]
    yield console.styled(
        f"Mined {counts['num_triplets']:,} triplets from {counts['num_images']:,} images of"
        f" {counts['num_landmarks']:,} landmarks in {found['seconds']:.1f} s ({found['search']} search).",
        "bold",
    )
    yield f"  Negatives: {_list_counts(counts['num_negatives_by_kind'])}."
    reasons = _list_counts(counts["num_left_out_by_reason"], ": ")
    yield f"  Anchors left out: {counts['num_left_out']:,}{reasons and f' ({reasons})'}."
    above = counts["num_passed_over"]
    yield (
        f"  Pairs passed over, as they are above {found['spec']['max_similarity']:g}: {above['positive']:,} of the same"
        f" landmark, {above['negative']:,} of others."
    )
    if counts["num_images_without_embedding"]:
        yield f"  Images of the table without an embedding: {counts['num_images_without_embedding']:,}."
    yield ""
    rows = [("similarity", *_QUANTILES.values())]
    rows += [(f"to the {name}", *(f"{each:.3f}" for each in values.values())) for name, values in similarities.items()]
    yield from console.format_table(rows)
    yield ""
    yield from map(console.fill, advice)
    config = json.dumps({"name": "hard", "triplets_file": found["out"]})
    yield f"Written to {found['out']}. Next:"
    yield (
        f"  tfds build landmark_triplets --imports landmark_triplets_tfds --config {shlex.quote(config)}"
        " --manual_dir <manual_dir>"
    )


def _advice(triplets: hard_triplets.MinedTriplets, spec: hard_triplets.MiningSpec) -> list[str]:
    """Returns what to try where what was asked for does not suit the embeddings."""
    advice = []
    num_above = triplets.num_left_out[hard_triplets.NO_POSITIVE] + triplets.num_left_out[hard_triplets.NO_NEGATIVE]
    if num_above > _MANY_LEFT_OUT * triplets.num_anchors:
        advice.append(
            f"Note: {num_above / triplets.num_anchors:.0%} of the anchors have only images above"
            f" --max_similarity {spec.max_similarity:g} to choose from. If a model, such as one that is hardly"
            " trained, makes all embeddings alike, a higher value suits it; 1 passes nothing over."
        )
    num_harder = triplets.num_negatives[hard_triplets.HARDER]
    if spec.negative == "semi-hard" and num_harder > _MANY_HARDER * len(triplets):
        advice.append(
            f"Note: {num_harder / len(triplets):.0%} of the anchors have no semi-hard negative among their"
            f" {spec.neighbours} nearest images of other landmarks, all of which are at least as similar as the"
            f" positive. More are looked at with --neighbours {min(10_000, 10 * spec.neighbours)}."
        )
    return advice


def _list_counts(counts: dict[str, int], separator: str = " ") -> str:
    return ", ".join(f"{count:,}{separator}{what}" for what, count in counts.items() if count)
