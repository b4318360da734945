"""What can be wrong with one record, seen by itself: its features, its images and the rules of triplets."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import hashlib
import re
from typing import Any

import simplejpeg

from landmark_triplets_tfds.build_report import TRIPLETS
from landmark_triplets_tfds.verification.findings import CONTENT, IMAGE, RULE
from landmark_triplets_tfds.verification.prepared_data import ID_FEATURES, IMAGE_FEATURES, LANDMARK_FEATURES

_IMAGE_ID_PATTERN = re.compile(rb"[0-9a-f]{16}")

_DIGEST_BYTES = 8

# Digests of images that were decoded already; each takes about 100 bytes. Triplets hold an image about three times.
_MAX_NUM_KNOWN = 1_000_000

AddProblem = Callable[[str, str, str | None], object]


@dataclasses.dataclass(frozen=True)
class RecordRules:
    """What records must be like; the fields are those of `PreparedData`, and of the config.

    Attributes:
      positive_may_be_anchor: whether the anchor may be its own positive.
    """

    noun: str
    features: frozenset[str]
    image_px: tuple[int, int] | None
    positive_may_be_anchor: bool


@dataclasses.dataclass(frozen=True)
class RecordContent:
    """What a record says, of its k images: one, or the anchor, the positive and the negative.

    Attributes:
      image_ids: of each image.
      landmark_ids: of each image.
      digests: of the stored bytes of each image.
    """

    image_ids: tuple[int, ...]
    landmark_ids: tuple[int, ...]
    digests: tuple[int, ...]


def digest_image(image_bytes: bytes) -> int:
    """Returns 64 bits that tell stored images apart."""
    return int.from_bytes(hashlib.blake2b(image_bytes, digest_size=_DIGEST_BYTES).digest(), "little")


class RecordChecker:
    """Checks records one after the other. It keeps the digests of images that it has decoded, to do that once each."""

    def __init__(self, rules: RecordRules):
        """Takes the rules."""
        from tensorflow_datasets.proto import tf_example_pb2  # half a second, which `--help` does without

        self._parse = tf_example_pb2.Example.FromString
        self._rules = rules
        self._images = IMAGE_FEATURES[rules.noun]
        self._ids = ID_FEATURES[rules.noun]
        self._landmarks = LANDMARK_FEATURES[rules.noun]
        self._known: set[int] = set()

    @property
    def num_images(self) -> int:
        """Images in a record."""
        return len(self._images)

    def describe_damaged(self, record: bytes) -> str:
        """Returns words for the key that a damaged record seems to have; '' if none can be read.

        In a serialized tf.train.Example, a text of 16 bytes stands behind the name of its feature and six bytes of
        tags and lengths (https://protobuf.dev/programming-guides/encoding).
        """
        tags = rb"\x12\x14\x0a\x12\x0a\x10"
        match = re.search(re.escape(self._ids[0].encode()) + tags + rb"([0-9a-f]{16})", record)
        return f"; its key reads {match[1].decode()}" if match else ""

    def check(self, record: bytes, add_problem: AddProblem) -> RecordContent | None:
        """Checks a record.

        Args:
          record: the bytes in the shard.
          add_problem: called with kind, message and key of each problem.

        Returns:
          What it says; None if it says too little to be compared with others.
        """
        try:
            features = self._parse(record).features.feature
        except Exception as error:  # google.protobuf.message.DecodeError, and whatever else it comes upon
            add_problem(CONTENT, f"it is no tf.train.Example ({error})", None)
            return None
        found = set(features)
        if found != self._rules.features:
            missing, surplus = sorted(self._rules.features - found), sorted(found - self._rules.features)
            parts = [f"it lacks {', '.join(missing)}"] if missing else []
            parts += [f"it has {', '.join(surplus)}, which features.json does not know"] if surplus else []
            add_problem(CONTENT, "; ".join(parts), None)
            if missing:
                return None
        try:
            ids = [_only_value(features, name, "bytes_list") for name in self._ids]
            landmarks = [_only_value(features, name, "int64_list") for name in self._landmarks]
            images = [_only_value(features, name, "bytes_list") for name in self._images]
        except ValueError as error:
            add_problem(CONTENT, str(error), None)
            return None
        for name, image_id in zip(self._ids, ids, strict=True):
            if not _IMAGE_ID_PATTERN.fullmatch(image_id):
                add_problem(CONTENT, f"{name} must be 16 hex digits (0-9, a-f), got {image_id[:40]!r}", None)
                return None
        key = ids[0].decode()
        digests = tuple(self._check_image(*pair, key, add_problem) for pair in zip(self._images, images, strict=True))
        content = RecordContent(tuple(int(i, 16) for i in ids), tuple(landmarks), digests)
        if self._rules.noun == TRIPLETS:
            self._check_triplet(content, key, add_problem)
        return content

    def _check_image(self, name: str, image_bytes: bytes, key: str, add_problem: AddProblem) -> int:
        """Adds a problem unless it is a whole JPEG of the right size; returns its digest."""
        digest = digest_image(image_bytes)
        if digest not in self._known:
            problem = find_image_problem(image_bytes, self._rules.image_px)
            if problem:
                add_problem(IMAGE, f"{name} {problem}", key)
            elif len(self._known) < _MAX_NUM_KNOWN:
                self._known.add(digest)
        return digest

    def _check_triplet(self, content: RecordContent, key: str, add_problem: AddProblem) -> None:
        anchor, positive, negative = content.image_ids
        landmark, _, negative_landmark = content.landmark_ids
        if min(landmark, negative_landmark) < 0:
            add_problem(RULE, f"a landmark_id must be 0 or more, got {min(landmark, negative_landmark)}", key)
        if anchor == positive and not self._rules.positive_may_be_anchor:
            add_problem(RULE, "the positive is the anchor itself", key)
        if landmark == negative_landmark:
            add_problem(RULE, f"the negative shows the anchor's landmark, {landmark}", key)
        if negative in (anchor, positive):
            add_problem(RULE, f"the negative is the {'anchor' if negative == anchor else 'positive'} itself", key)


def find_image_problem(image_bytes: bytes, image_px: tuple[int, int] | None) -> str:
    """Returns what is wrong with a stored image, as the rest of a sentence; '' if nothing is.

    Args:
      image_bytes: of the JPEG.
      image_px: its height and width; None: any.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(image_bytes)
    except ValueError as error:
        return f"is no JPEG ({error})"
    if image_px not in (None, (height, width)):  # before it is decoded: a wrong size may be an enormous one
        return f"has {height} x {width} px, and features.json says {image_px[0]} x {image_px[1]}"
    try:
        simplejpeg.decode_jpeg(image_bytes, "GRAY", fastdct=True, strict=True)  # the colours need no second look
    except ValueError as error:
        return f"does not decode ({error})"
    return ""


def _only_value(features: Any, name: str, kind: str) -> Any:
    """Returns the single value of a feature; raises ValueError with what it has instead."""
    feature = features[name]
    values = getattr(feature, kind).value
    if len(values) != 1:
        found = feature.WhichOneof("kind") or "nothing"
        count = len(getattr(feature, found).value) if found != "nothing" else 0
        raise ValueError(f"{name} must be one value in a {kind}, got {count} in {found}")
    return values[0]
