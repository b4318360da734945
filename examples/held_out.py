"""Judges embeddings of landmarks that were held out, and shows what they find. Both training examples use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from prepared import NotPreparedError

from landmark_triplets_tfds import ImageIndex, average_precisions, choose_queries, find_nearest

K = 100  # results that count, as in the competition

_SIDE, _FRAME, _GAP, _LABEL_HEIGHT = 96, 4, 6, 20  # px, of the picture
_MATCH, _NO_MATCH, _QUERY = (0, 150, 60), (200, 30, 30), (90, 90, 90)


class HeldOut:
    """The images of a validation split, divided into queries and the index that these search.

    Attributes:
      query_rows: int64[num_queries]: the records of the queries, one for each landmark with two images or more.
      index_rows: int64[num_index]: all other records.

    Raises:
      NotPreparedError: if no landmark has two images.
    """

    def __init__(self, index: ImageIndex):
        is_query = choose_queries(index.image_ids, index.landmark_ids)
        self.query_rows, self.index_rows = np.flatnonzero(is_query), np.flatnonzero(~is_query)
        self._landmarks = index.landmark_ids
        if not len(self.query_rows):
            raise NotPreparedError(
                f"None of the {len(index)} held-out images shares its landmark with another one, so there is nothing to"
                " search for. Hold out more landmarks: validation_percent."
            )

    @property
    def size(self) -> str:
        """What an evaluation is made of, in words."""
        return f"{len(self.query_rows):,} queries search {len(self.index_rows):,} images"

    def evaluate(self, embeddings: npt.NDArray[np.float32]) -> dict[str, float]:
        """Returns mAP@100 and recall@1.

        Args:
          embeddings: float32[num_images, dim] of the split, in record order.
        """
        landmarks = self._landmarks[self.query_rows], self._landmarks[self.index_rows]
        results = self._search(embeddings, self.query_rows, K)
        return {
            "map_at_100": float(average_precisions(results, *landmarks, K).mean()),
            "recall_at_1": float((average_precisions(results, *landmarks, k=1) > 0).mean()),
        }

    def _search(
        self, embeddings: npt.NDArray[np.float32], queries: npt.NDArray[np.int64], k: int
    ) -> npt.NDArray[np.int64]:
        return find_nearest(embeddings[queries], embeddings[self.index_rows], k)

    def draw(
        self,
        path: Path,
        embeddings: npt.NDArray[np.float32],
        data_source: Any,
        num_queries: int = 8,
        num_results: int = 6,
    ) -> None:
        """Writes a picture: a row for each of some queries, with its first results, framed green or red.

        Args:
          path: of the PNG.
          embeddings: float32[num_images, dim] of the split, in record order.
          data_source: its records.
          num_queries: rows, spread evenly over the queries.
          num_results: columns beside the query.
        """
        places = np.unique(np.linspace(0, len(self.query_rows) - 1, num_queries).astype(np.int64))
        queries = self.query_rows[places]
        results = self.index_rows[self._search(embeddings, queries, num_results)]
        step = _SIDE + 2 * _FRAME + _GAP
        size = (step * (1 + results.shape[1]), step * len(queries) - _GAP + _LABEL_HEIGHT)
        sheet = Image.new("RGB", size, "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
        labels = ["query", *(f"result {rank}" for rank in range(1, results.shape[1] + 1))]
        for column, text in enumerate(labels):
            left = column * step + (_GAP if column else 0)
            draw.text((left + step / 2, _LABEL_HEIGHT / 2), text, fill="black", font=font, anchor="mm")
        for row, query in enumerate(queries):
            top = _LABEL_HEIGHT + row * step
            self._paste(sheet, (0, top), data_source[int(query)], _QUERY)
            for column, result in enumerate(results[row], 1):
                is_match = self._landmarks[result] == self._landmarks[query]
                color = _MATCH if is_match else _NO_MATCH
                self._paste(sheet, (column * step + _GAP, top), data_source[int(result)], color)
        sheet.save(path, optimize=True)

    @staticmethod
    def _paste(sheet: Image.Image, place: tuple[int, int], record: Any, color: Sequence[int]) -> None:
        picture = Image.fromarray(record["image"]).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        frame = Image.new("RGB", (_SIDE + 2 * _FRAME, _SIDE + 2 * _FRAME), tuple(color))
        frame.paste(picture, (_FRAME, _FRAME))
        sheet.paste(frame, place)


def describe(metrics: dict[str, float]) -> str:
    """Returns the measures in words."""
    return f"mAP@100 {metrics['map_at_100']:.3f}, recall@1 {metrics['recall_at_1']:.3f}"


def save_embeddings(folder: Path, embed: Callable[[str], npt.NDArray[np.float32]], images: Any) -> None:
    """Writes the embeddings of every split, and says what to do with them.

    Args:
      folder: for a file ``<split>.npy`` of each.
      embed: from a split's name to float32[num_images, dim] in record order, which `index.npz` of the dataset lists.
      images: the dataset's builder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split in images.info.splits:
        np.save(folder / f"{split}.npy", np.ascontiguousarray(embed(split), dtype=np.float32))
    print(f"Written to {folder}: embeddings of the splits {', '.join(images.info.splits)}. Mine triplets from them:\n")
    print(f"  landmark-triplets mine --embeddings {folder / 'train.npy'} --index {images.data_dir} --out <file>.csv")
