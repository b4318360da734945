"""How large the thumbnails of a copy's images are, by resolution and quality: measured on a few, estimated between.

The mean size of thumbnails grows smoothly with their resolution, so that it is measured at powers of two and, on
logarithmic scales, interpolated; what another quality takes is about the same factor at each resolution.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.errors import CommandError, UnreadableImageError
from landmark_triplets_tfds.image_header import read_header
from landmark_triplets_tfds.image_sample import choose_rows
from landmark_triplets_tfds.sources import ImageSource
from landmark_triplets_tfds.thumbnails import ThumbnailSpec, make_thumbnail

_NUM_MEASURED = 150  # images; their mean is off by some 3 %

_GRID_PX = (32, 64, 128, 256, 512)
_MAX_RESOLUTION_PX = 1024
_STEP_PX = 16

# The quality at which resolutions are measured, and the resolution at which qualities are.
_QUALITY, _RESOLUTION_PX = 90, 128


class ThumbnailSizes:
    """Mean sizes of thumbnails. A context manager.

    Attributes:
      max_resolution_px: up to which sizes are estimated: what the images themselves have.
    """

    def __init__(self, source: ImageSource, image_ids: npt.NDArray[np.uint64], num_workers: int, seed: int):
        """Reads a few images.

        Args:
          source: of the images.
          image_ids: uint64[num_images] to choose from.
          num_workers: threads.
          seed: of the choice.

        Raises:
          CommandError: if none of them is readable.
        """
        self._files: list[bytes] = []
        short_sides = []
        for image_id in image_ids[choose_rows(image_ids, _NUM_MEASURED, seed)].tolist():
            try:
                content = source.read(image_id)
                make_thumbnail(content, ThumbnailSpec())
                header = read_header(content)
            except UnreadableImageError:
                continue
            self._files.append(content)
            short_sides.append(min(header.height, header.width))
        if not self._files:
            raise CommandError("Too few of the sampled images are readable to forecast anything: run inspect first.")
        limit = min(_MAX_RESOLUTION_PX, int(np.median(short_sides)) // _STEP_PX * _STEP_PX)
        self.max_resolution_px = max(_RESOLUTION_PX, limit)
        self._grid = [px for px in _GRID_PX if px < self.max_resolution_px] + [self.max_resolution_px]
        self._means: dict[ThumbnailSpec, float] = {}
        self._pool = ThreadPoolExecutor(num_workers)

    def __enter__(self) -> ThumbnailSizes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def mean_bytes(self, spec: ThumbnailSpec) -> float:
        """Returns the mean size of thumbnails, measured."""
        if spec not in self._means:
            sizes = self._pool.map(lambda content: len(make_thumbnail(content, spec)), self._files)
            self._means[spec] = float(np.mean(list(sizes)))
        return self._means[spec]

    def estimate(self, resolution: int, quality: int) -> float:
        """Returns the mean size of thumbnails of up to `max_resolution_px`, estimated."""
        sizes = [self.mean_bytes(ThumbnailSpec(resolution=px, jpeg_quality=_QUALITY)) for px in self._grid]
        size = float(np.exp(np.interp(np.log(resolution), np.log(self._grid), np.log(sizes))))
        wanted, measured = (
            self.mean_bytes(ThumbnailSpec(resolution=_RESOLUTION_PX, jpeg_quality=each)) for each in (quality, _QUALITY)
        )
        return size * wanted / measured
