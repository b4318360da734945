"""The command `mine`: its arguments, and what it shows."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import json
import shlex
import time
from typing import TYPE_CHECKING, Any

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.arguments import build_options, folder, json_flag, option
from landmark_triplets_tfds.errors import CommandError, EmbeddingsError, NoExampleError
from landmark_triplets_tfds.triplets.draws import TRAIN

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from landmark_triplets_tfds.mining.hard_triplets import MinedTriplets, MiningSpec


_QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)

# Above these shares of anchors, what was asked for does not suit the embeddings, and the summary says so.
_MANY_LEFT_OUT, _MANY_HARDER = 0.05, 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine:
    """Choose hard triplets by a model's embeddings of the images.

    Every image is an anchor once. Its negative is one of the most similar images of other landmarks. The file
    that comes of it is for the field triplets_file of a config of landmark_triplets; docs/hard_triplets.md shows
    the whole round. Similarity is the cosine; embeddings need not have length 1.

    Which image is in which row says --index, where the embeddings are of the records of landmark_images in their
    order, or --ids with --manual_dir.

    Exit status: 0 if triplets were written, 2 if not.

    Examples:
      landmark-triplets mine --embeddings e.npy --index data/landmark_images/128px_all/1.0.0 --out hard.csv
      landmark-triplets mine --embeddings e.npy --ids ids.txt --manual_dir ~/landmarks --out hard.parquet
    """

    embeddings: str = option("A .npy file with float16 or float32, an image per row.", metavar="FILE")
    out: str = option("File to write: .csv or .parquet.", metavar="FILE")
    index: str | None = option("Folder of a prepared landmark_images, with index.npz.", default=None, metavar="DIR")
    split: str = option("Split of --index (default: train).", default=TRAIN, metavar="NAME")
    ids: str | None = option(
        "Ids of the images: a text file, one per line, or .npy with uint64.", default=None, metavar="FILE"
    )
    manual_dir: str | None = option(
        "Folder with the competition's files, whose table says which landmark the --ids show.",
        default=None,
        metavar="DIR",
    )
    positive: str = option(
        "random: any image of the landmark; hardest: the least similar one (default: random).",
        default="random",
        choices=("random", "hardest"),
        metavar="RULE",
    )
    negative: str = option(
        "semi-hard: less similar than the positive, by less than the margin; hardest: the most similar (default:"
        " semi-hard).",
        default="semi-hard",
        choices=("semi-hard", "hardest"),
        metavar="RULE",
    )
    neighbours: int = option("Nearest images that negatives are chosen from (default: 50).", default=50, metavar="K")
    max_similarity: float = option(
        "Images above it are passed over, as near-duplicates (default: 0.95).", default=0.95, metavar="S"
    )
    margin: float = option(
        "Of semi-hard negatives, in squared distance; half of it in similarity (default: 0.2).",
        default=0.2,
        metavar="M",
    )
    seed: int = option("Of random positives (default: 0).", default=0, metavar="N")
    search: str = option(
        "exact, approximate (by faiss), or auto: exact for up to 200,000 images (default: auto).",
        default="auto",
        choices=("auto", "exact", "approximate"),
        metavar="HOW",
    )
    json: bool = json_flag()

    def execute(self) -> int:
        from landmark_triplets_tfds.mining.embeddings import read_embeddings
        from landmark_triplets_tfds.mining.hard_triplets import check_output, mine_triplets, write_triplets

        out = folder(self.out)
        check_output(out)
        spec = self._spec()
        embeddings = read_embeddings(folder(self.embeddings))
        image_ids, landmark_ids, num_without = self._read_labels(len(embeddings))
        start = time.perf_counter()
        with console.progress(len(embeddings), "Mining", " images") as bar:
            triplets = mine_triplets(embeddings, image_ids, landmark_ids, spec, bar.update)
        seconds = time.perf_counter() - start
        if not len(triplets):
            reasons = _list_counts(triplets.num_left_out, ": ")
            raise NoExampleError("\n".join([f"No triplet can be mined. {reasons}.", *_advice(triplets, spec)]))
        write_triplets(triplets, out)
        if self.json:
            console.print_json(_as_json(triplets, spec, self.out, num_without, seconds))
        else:
            print("\n".join(_lines(triplets, spec, self.out, num_without, seconds)))
        return console.OK

    def _spec(self) -> MiningSpec:
        from landmark_triplets_tfds.mining.hard_triplets import MiningSpec

        try:
            return MiningSpec(**{field.name: getattr(self, field.name) for field in dataclasses.fields(MiningSpec)})
        except ValueError as error:
            raise CommandError(f"--{error}") from None

    def _read_labels(self, num_rows: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.integer], int]:
        """Returns uint64[n] image ids, int[n] landmark ids, and how many images of the table have no embedding."""
        if (self.index is None) == (self.ids is None) or (self.ids is None) != (self.manual_dir is None):
            raise CommandError(
                "say which images the embeddings are of: either with --index DIR (a prepared landmark_images), or with"
                " --ids FILE and --manual_dir DIR."
            )
        if self.index is not None:
            from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_index

            records = read_image_index(folder(self.index), self.split)
            name = f"split {self.split!r} in {folder(self.index) / INDEX_NAME}"
            self._check_length(num_rows, len(records), f"{name} has", "records")
            return records.image_ids, records.landmark_ids, 0
        from landmark_triplets_tfds.competition.source import find_source
        from landmark_triplets_tfds.mining.embeddings import landmarks_of, read_image_ids

        image_ids = read_image_ids(folder(str(self.ids)))
        self._check_length(num_rows, len(image_ids), f"{self.ids} holds", "ids")
        source = find_source(folder(str(self.manual_dir)), build_options().bank)
        table = source.read_table()
        return image_ids, landmarks_of(image_ids, table, source.table_path), table.num_images - len(image_ids)

    def _check_length(self, num_rows: int, num_ids: int, whose: str, what: str) -> None:
        if num_rows != num_ids:
            raise EmbeddingsError(
                f"{self.embeddings} has {num_rows:,} rows, but {whose} {num_ids:,} {what}. Row i must be the embedding"
                f" of number i of the {what}: compute embeddings for all of them, in their order."
            )


def _as_json(triplets: MinedTriplets, spec: MiningSpec, out: str, num_without: int, seconds: float) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "out": out,
        "spec": dataclasses.asdict(spec),
        "search": triplets.search,
        "counts": {
            "num_images": triplets.num_anchors,
            "num_landmarks": triplets.num_landmarks,
            "num_images_without_embedding": num_without,
            "num_triplets": len(triplets),
            "num_left_out": _num_left_out(triplets),
            "num_left_out_by_reason": triplets.num_left_out,
            "num_negatives_by_kind": triplets.num_negatives,
            "num_passed_over": triplets.num_passed_over,
        },
        "similarity_quantiles": {
            name: dict(zip(map(str, _QUANTILES), values, strict=True)) for name, values in _quantiles(triplets)
        },
        "seconds": round(seconds, 3),
    }


def _lines(triplets: MinedTriplets, spec: MiningSpec, out: str, num_without: int, seconds: float) -> Iterator[str]:
    yield console.styled(
        f"Mined {len(triplets):,} triplets from {triplets.num_anchors:,} images of {triplets.num_landmarks:,} landmarks"
        f" in {seconds:.1f} s ({triplets.search} search).",
        "bold",
    )
    yield f"  Negatives: {_list_counts(triplets.num_negatives)}."
    reasons = _list_counts(triplets.num_left_out, ": ")
    yield f"  Anchors left out: {_num_left_out(triplets):,}{reasons and f' ({reasons})'}."
    above = triplets.num_passed_over
    yield (
        f"  Pairs passed over, as they are above {spec.max_similarity:g}: {above['positive']:,} of the same landmark,"
        f" {above['negative']:,} of others."
    )
    if num_without:
        yield f"  Images of the table without an embedding: {num_without:,}."
    yield ""
    rows = [("similarity", *(_name_quantile(share) for share in _QUANTILES))]
    rows += [(f"to the {name}", *(f"{value:.3f}" for value in values)) for name, values in _quantiles(triplets)]
    yield from console.format_table(rows)
    yield ""
    yield from map(console.fill, _advice(triplets, spec))
    config = json.dumps({"name": "hard", "triplets_file": out})
    yield f"Written to {out}. Next:"
    yield (
        f"  tfds build landmark_triplets --imports landmark_triplets_tfds --config {shlex.quote(config)}"
        " --manual_dir <manual_dir>"
    )


def _advice(triplets: MinedTriplets, spec: MiningSpec) -> list[str]:
    """Returns what to try where what was asked for does not suit the embeddings."""
    from landmark_triplets_tfds.mining.hard_triplets import HARDER, NO_NEGATIVE, NO_POSITIVE

    advice = []
    num_above = triplets.num_left_out[NO_POSITIVE] + triplets.num_left_out[NO_NEGATIVE]
    if num_above > _MANY_LEFT_OUT * triplets.num_anchors:
        advice.append(
            f"Note: {num_above / triplets.num_anchors:.0%} of the anchors have only images above"
            f" --max_similarity {spec.max_similarity:g} to choose from. If a model, such as one that is hardly"
            " trained, makes all embeddings alike, a higher value suits it; 1 passes nothing over."
        )
    num_harder = triplets.num_negatives[HARDER]
    if spec.negative == "semi-hard" and num_harder > _MANY_HARDER * len(triplets):
        advice.append(
            f"Note: {num_harder / len(triplets):.0%} of the anchors have no semi-hard negative among their"
            f" {spec.neighbours} nearest images of other landmarks, all of which are at least as similar as the"
            f" positive. More are looked at with --neighbours {min(10_000, 10 * spec.neighbours)}."
        )
    return advice


def _quantiles(triplets: MinedTriplets) -> list[tuple[str, list[float]]]:
    import numpy as np

    values = np.quantile(triplets.similarities.astype(np.float64), _QUANTILES, axis=0).round(6)
    return [("positive", values[:, 0].tolist()), ("negative", values[:, 1].tolist())]


def _name_quantile(share: float) -> str:
    return {0: "min", 0.5: "median", 1: "max"}.get(share, f"{share:.0%}")


def _list_counts(counts: dict[str, int], separator: str = " ") -> str:
    return ", ".join(f"{count:,}{separator}{what}" for what, count in counts.items() if count)


def _num_left_out(triplets: MinedTriplets) -> int:
    return triplets.num_anchors - len(triplets)
