"""What each record is by itself: every shard is read once, hashed, and its records checked, by several processes.

A record has its features, whole images of the right size, and follows the rules of triplets. Decoding the images is
what takes time: about as long as reading the same dataset for training does. Each process decodes an image once,
however often it meets it. Processes, because taking records apart holds Python's global lock.

What records say is kept as numbers, some 70 bytes an image, so that comparing them is arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import hashlib
import re
from typing import Any

from etils import epath
import loky
import numpy as np
import numpy.typing as npt
import simplejpeg
from tensorflow_datasets.proto import tf_example_pb2

from landmark_triplets_tfds.commands.verify.findings import CHECKSUM, CONTENT, COUNT, FILE, IMAGE, RULE, Findings
from landmark_triplets_tfds.commands.verify.prepared import INFO_NAME, PreparedData, Shard
from landmark_triplets_tfds.commands.verify.records import hash_file, read_records
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.triplets.examples import TRIPLETS, ExampleKind

# Less than this is done before other processes have started.
_MIN_BYTES_FOR_PROCESSES = 16 << 20  # 16 MiB

# Digests of images that were decoded already; each takes about 100 bytes. Triplets hold an image about three times.
_MAX_NUM_KNOWN = 1_000_000

_IMAGE_ID_PATTERN = re.compile(rb"[0-9a-f]{16}")

# Of each image of a record: id, landmark, digest.
_Content = tuple[list[int], list[int], list[int]]


@dataclasses.dataclass(frozen=True)
class Records:
    """What records say: those of a shard or of a split that say enough to be compared.

    Attributes:
      image_ids: uint64[n, k], of the k images of a record.
      landmark_ids: int64[n, k].
      digests: uint64[n, k], of the stored images.
      shards: int32[n], the shard of each record, as a number in ``PreparedData.shards``.
      numbers: int64[n], the number of each record in its shard.
    """

    image_ids: npt.NDArray[np.uint64]
    landmark_ids: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint64]
    shards: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def join(cls, parts: Sequence[Records]) -> Records:
        """Returns all records of some parts, at least one, one part after the other."""
        fields = (field.name for field in dataclasses.fields(cls))
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))

    def place(self, number: int, data: PreparedData) -> dict[str, Any]:
        """Returns shard, number in it and key of one of these records, as `Findings.add` takes them."""
        return {
            "file": data.shards[self.shards[number]].name,
            "record": int(self.numbers[number]),
            "key": format_image_id(self.image_ids[number, 0]),
        }


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What came of a shard.

    Attributes:
      shard: which one.
      sha256: of the file; None if it cannot be read.
      num_records: that were read, damaged ones included.
      num_bytes: the sum of the sizes of the undamaged ones.
      records: what they say.
      findings: what is wrong.
    """

    shard: Shard
    sha256: str | None
    num_records: int
    num_bytes: int
    records: Records
    findings: Findings


@dataclasses.dataclass(frozen=True)
class RecordRules:
    """What records must be like; the fields are those of `PreparedData`, and of the config.

    Attributes:
      positive_may_be_anchor: whether the anchor may be its own positive.
    """

    kind: ExampleKind
    features: frozenset[str]
    image_px: tuple[int, int] | None
    positive_may_be_anchor: bool


def check_shards(data: PreparedData, num_processes: int | None = None) -> Iterator[ShardResult]:
    """Checks all shards; yields what comes of each, in their order.

    Args:
      data: the dataset.
      num_processes: None: one for each usable core.
    """
    rules = RecordRules(
        kind=data.kind,
        features=data.features,
        image_px=data.image_px,
        positive_may_be_anchor=bool(data.config_fields.get("positive_may_be_anchor", False)),
    )
    check = functools.partial(_check_shard, rules, data.folder, data.file_format)
    num_processes = min(num_processes or loky.cpu_count(), len(data.shards))
    sizes = [path.stat().length for shard in data.shards if (path := data.folder / shard.name).exists()]
    if num_processes <= 1 or sum(sizes) < _MIN_BYTES_FOR_PROCESSES:
        yield from map(check, range(len(data.shards)), data.shards)
        return
    with loky.ProcessPoolExecutor(num_processes) as pool:
        yield from pool.map(check, range(len(data.shards)), data.shards)


def _check_shard(
    rules: RecordRules, folder: epath.Path, file_format: str, number_of_shard: int, shard: Shard
) -> ShardResult:
    findings, known = Findings(), _known_images(rules)
    contents: list[_Content] = []
    numbers: list[int] = []
    num_records = num_bytes = 0
    path, sha256 = folder / shard.name, None
    try:
        sha256 = hash_file(path)
        for record, problem in read_records(path, file_format):
            place = {"file": shard.name, "record": num_records}
            if record is None:
                findings.add(CHECKSUM, problem, **place)
            else:
                num_bytes += len(record)
                content = _check_record(record, rules, known, findings, place)
                if content is not None:
                    contents.append(content)
                    numbers.append(num_records)
            num_records += 1
    except FileNotFoundError:
        pass  # noted where the files of the folder are compared
    except OSError as error:
        findings.add(FILE, f"it cannot be read ({error.strerror or error})", file=shard.name)
    else:
        if shard.num_records not in (None, num_records):
            message = f"it has {num_records:,} records, and {INFO_NAME} says {shard.num_records:,}"
            findings.add(COUNT, message, file=shard.name)
    ids, landmarks, digests = zip(*contents, strict=True) if contents else ([], [], [])
    shape = (len(contents), rules.kind.num_images)
    records = Records(
        image_ids=np.array(ids, dtype=np.uint64).reshape(shape),
        landmark_ids=np.array(landmarks, dtype=np.int64).reshape(shape),
        digests=np.array(digests, dtype=np.uint64).reshape(shape),
        shards=np.full(len(contents), number_of_shard, dtype=np.int32),
        numbers=np.array(numbers, dtype=np.int64),
    )
    return ShardResult(shard, sha256, num_records, num_bytes, records, findings)


@functools.lru_cache(maxsize=1)
def _known_images(rules: RecordRules) -> set[int]:
    """Returns the digests of images that this process has found well under these rules, in whatever shard."""
    return set()


def _check_record(
    record: bytes, rules: RecordRules, known: set[int], findings: Findings, place: dict[str, Any]
) -> _Content | None:
    """Checks a record.

    Args:
      record: the bytes in the shard.
      rules: what it must be like.
      known: digests of images that need no second look; are added to.
      findings: are added to.
      place: of the record, without its key.

    Returns:
      What it says; None if that is too little to be compared with others.
    """
    kind = rules.kind
    try:
        features = tf_example_pb2.Example.FromString(record).features.feature
    except Exception as error:  # google.protobuf.message.DecodeError, and whatever else it comes upon
        findings.add(CONTENT, f"it is no tf.train.Example ({error})", **place)
        return None
    found = set(features)
    if found != rules.features:
        missing, surplus = sorted(rules.features - found), sorted(found - rules.features)
        parts = [f"it lacks {', '.join(missing)}"] if missing else []
        parts += [f"it has {', '.join(surplus)}, which features.json does not know"] if surplus else []
        findings.add(CONTENT, "; ".join(parts), **place)
        if missing:
            return None
    try:
        ids = [_only_value(features, name, "bytes_list") for name in kind.id_features]
        landmarks = [_only_value(features, name, "int64_list") for name in kind.landmark_features]
        images = [_only_value(features, name, "bytes_list") for name in kind.image_features]
    except ValueError as error:
        findings.add(CONTENT, str(error), **place)
        return None
    for name, image_id in zip(kind.id_features, ids, strict=True):
        if not _IMAGE_ID_PATTERN.fullmatch(image_id):
            message = f"{name} must be 16 hex digits (0-9, a-f), got {image_id[:40]!r}"
            findings.add(CONTENT, message, **place)
            return None
    place = place | {"key": ids[0].decode()}
    digests = [digest_image(image_bytes) for image_bytes in images]
    for name, image_bytes, digest in zip(kind.image_features, images, digests, strict=True):
        if digest in known:
            continue
        if problem := find_image_problem(image_bytes, rules.image_px):
            findings.add(IMAGE, f"{name} {problem}", **place)
        elif len(known) < _MAX_NUM_KNOWN:
            known.add(digest)
    numbers = [int(image_id, 16) for image_id in ids]
    if kind == TRIPLETS:
        for problem in _find_broken_rules(numbers, landmarks, rules.positive_may_be_anchor):
            findings.add(RULE, problem, **place)
    return numbers, landmarks, digests


def _find_broken_rules(ids: list[int], landmarks: list[int], positive_may_be_anchor: bool) -> Iterator[str]:
    """Yields what is wrong with the images of a triplet."""
    anchor, positive, negative = ids
    landmark, _, negative_landmark = landmarks
    if min(landmarks) < 0:
        yield f"a landmark_id must be 0 or more, got {min(landmarks)}"
    if anchor == positive and not positive_may_be_anchor:
        yield "the positive is the anchor itself"
    if landmark == negative_landmark:
        yield f"the negative shows the anchor's landmark, {landmark}"
    if negative in (anchor, positive):
        yield f"the negative is the {'anchor' if negative == anchor else 'positive'} itself"


def digest_image(image_bytes: bytes) -> int:
    """Returns 64 bits that tell stored images apart."""
    return int.from_bytes(hashlib.blake2b(image_bytes, digest_size=8).digest(), "little")


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
