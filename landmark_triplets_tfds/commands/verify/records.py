"""What each record is by itself: every shard is read once, hashed, and its records checked, by several processes.

A record has its features, whole images of the right size, and follows the rules of triplets. Decoding the images is
what takes time: about as long as reading the same dataset for training does. Each process decodes an image once,
however often it meets it. Processes, because taking records apart holds Python's global lock.

What records say is kept as numbers, some 70 bytes an image, so that comparing them is arithmetic. Of what is wrong, all
is counted and only the first problems of each kind are kept: a damaged disk can make one of every record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
import dataclasses
import functools
import hashlib
from typing import Any

import loky
import numpy as np
import numpy.typing as npt
import simplejpeg

from landmark_triplets_tfds.build.hooks import INFO_NAME
from landmark_triplets_tfds.commands.prepared import PreparedData, hash_file, parse_example, read_records
from landmark_triplets_tfds.competition.tables import format_image_id, parse_image_ids
from landmark_triplets_tfds.triplets.examples import TRIPLETS


class Kind:
    """Kinds of problems, in the order in which they are shown."""

    INFO = "dataset information"
    FILE = "files"
    SHA256 = "published sha256"
    CHECKSUM = "record checksums"
    CONTENT = "content of records"
    IMAGE = "stored images"
    RULE = "rules of triplets and splits"
    REPEATED = "repeated records"
    ORDER = "order of records"
    COUNT = "counts"
    INDEX = "index of images"
    LIST = "list of triplets"
    TABLE = "table of images"
    PLAN = "planned examples"
    SOURCE = "images made again"


_KINDS = tuple(text for name, text in vars(Kind).items() if name.isupper())

# Of each kind, in a shard as in all of them.
NUM_KEPT = 100

# Less than this is done before other processes have started.
_MIN_BYTES_FOR_PROCESSES = 16 << 20  # 16 MiB

# Digests of images that were decoded already; each takes about 100 bytes. Triplets hold an image about three times.
_MAX_NUM_KNOWN = 1_000_000


class Findings:
    """What is wrong, each problem with the place that has it, and what is not known."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # of problems, by kind
        self.not_checked: list[str] = []  # sentences about what should have been checked and could not be, and why
        self.notes: list[str] = []  # sentences about what nobody asked to check
        self._kept: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _KINDS}

    def add(self, kind: str, message: str, **place: Any) -> None:
        """Adds a problem: one of `Kind`, what is wrong as part of a sentence, and, of what is known, its place.

        That is the name of a ``file``, the number of the ``record`` in this shard, and its ``key``, an image_id.
        """
        self.counts[kind] += 1
        if len(self._kept[kind]) < NUM_KEPT:
            nowhere = {"file": None, "record": None, "key": None}
            self._kept[kind].append({"kind": kind, "message": message} | nowhere | place)

    def take_over(self, other: Findings) -> None:
        """Adds the problems that were found elsewhere."""
        for kind, problems in self._kept.items():
            problems += other._kept[kind][: NUM_KEPT - len(problems)]
        self.counts += other.counts

    def as_json(self) -> dict[str, Any]:
        """Returns all of it: the counts, and the problems that were kept, in the order of the kinds."""
        return {
            "num_problems": self.counts.total(),
            "num_problems_by_kind": {kind: self.counts[kind] for kind in _KINDS if self.counts[kind]},
            "problems": [problem for problems in self._kept.values() for problem in problems],
            "not_checked": self.not_checked,
            "notes": self.notes,
        }


@dataclasses.dataclass(frozen=True)
class Records:
    """What the records of a shard or of a split say; n are those that say enough to be compared."""

    num_records: int  # that were read, damaged ones included
    num_bytes: int  # the sum of the sizes of the undamaged ones
    image_ids: npt.NDArray[np.uint64]  # [n, k], of the k images of a record
    landmark_ids: npt.NDArray[np.int64]  # [n, k]
    digests: npt.NDArray[np.uint64]  # [n, k], of the stored images
    shards: npt.NDArray[np.int32]  # [n], as a number in `PreparedData.shards`
    numbers: npt.NDArray[np.int64]  # [n], in the shard

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def join(cls, parts: Sequence[Records]) -> Records:
        """Returns all records of some parts, at least one, one part after the other."""
        columns: Any = zip(*(vars(part).values() for part in parts), strict=True)
        joined: Any = [sum(c) if isinstance(c[0], int) else np.concatenate(c) for c in columns]
        return cls(*joined)

    def place(self, number: int, data: PreparedData) -> dict[str, Any]:
        """Returns shard, number in it and key of one of these records, as `Findings.add` takes them."""
        return {
            "file": data.shards[self.shards[number]].name,
            "record": int(self.numbers[number]),
            "key": format_image_id(self.image_ids[number, 0]),
        }


def find_runs(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns where runs of equal values start and where they stop, int64[num_runs] each."""
    is_new = np.ones(len(values), dtype=bool)
    is_new[1:] = values[1:] != values[:-1]
    starts = np.flatnonzero(is_new)
    return starts, np.append(starts, len(values))[1:]


def check_shards(
    data: PreparedData, num_processes: int | None = None
) -> Iterator[tuple[Records, str | None, Findings]]:
    """Yields of each shard its records, its sha256, None if it cannot be read, and what is wrong with it.

    They are read by so many processes; None: by one for each usable core.
    """
    check = functools.partial(_check_shard, dataclasses.replace(data, report=None))  # which may be long
    num_processes = min(num_processes or loky.cpu_count(), len(data.shards))
    if num_processes <= 1 or sum(data.split_bytes.values()) < _MIN_BYTES_FOR_PROCESSES:
        yield from map(check, range(len(data.shards)))
        return
    with loky.ProcessPoolExecutor(num_processes) as pool:
        yield from pool.map(check, range(len(data.shards)))


def _check_shard(data: PreparedData, number_of_shard: int) -> tuple[Records, str | None, Findings]:
    shard, findings = data.shards[number_of_shard], Findings()
    contents: list[tuple[int, list[int], list[int], list[int]]] = []
    num_records = num_bytes = 0
    path, sha256 = data.folder / shard.name, None
    try:
        sha256 = hash_file(path)
        for record, problem in read_records(path, data.file_format):
            place = {"file": shard.name, "record": num_records}
            if record is None:
                findings.add(Kind.CHECKSUM, f"{problem}; build the dataset again", **place)
            else:
                num_bytes += len(record)
                content = _check_record(record, data, findings, place)
                if content is not None:
                    contents.append((num_records, *content))
            num_records += 1
    except FileNotFoundError:
        findings.add(Kind.FILE, "it is missing", file=shard.name)
    except OSError as error:
        findings.add(Kind.FILE, f"it cannot be read ({error.strerror or error})", file=shard.name)
    else:
        if shard.num_records not in (None, num_records):
            message = f"it has {num_records:,} records, and {INFO_NAME} says {shard.num_records:,}"
            findings.add(Kind.COUNT, message, file=shard.name)
    numbers, ids, landmarks, digests = zip(*contents, strict=True) if contents else ([], [], [], [])
    shape = (len(contents), data.kind.num_images)
    records = Records(
        num_records=num_records,
        num_bytes=num_bytes,
        image_ids=np.array(ids, dtype=np.uint64).reshape(shape),
        landmark_ids=np.array(landmarks, dtype=np.int64).reshape(shape),
        digests=np.array(digests, dtype=np.uint64).reshape(shape),
        shards=np.full(len(contents), number_of_shard, dtype=np.int32),
        numbers=np.array(numbers, dtype=np.int64),
    )
    return records, sha256, findings


@functools.lru_cache(maxsize=1)
def _known_images(image_px: tuple[int, ...] | None) -> set[int]:
    """Returns the digests of images of this size that this process has found well, in whatever shard."""
    return set()


def _check_record(
    record: bytes, data: PreparedData, findings: Findings, place: dict[str, Any]
) -> tuple[list[int], list[int], list[int]] | None:
    """Returns id, landmark and digest of each image of a record; None if that is too little to compare.

    What is wrong is added to the findings, at this place or, if its key is known, there.
    """
    kind, known = data.kind, _known_images(data.image_px)
    try:
        example, names = parse_example(record, kind)
        texts = [example[name].decode(errors="replace") for name in kind.id_features]
        ids = parse_image_ids(texts).tolist()
    except ValueError as error:
        findings.add(Kind.CONTENT, str(error), **place)
        return None
    if surplus := sorted(names - data.features):
        findings.add(Kind.CONTENT, f"it has {', '.join(surplus)}, which features.json does not know", **place)
    if missing := sorted(data.features - names):
        findings.add(Kind.CONTENT, f"it lacks {', '.join(missing)}", **place)
    images, landmarks = ([example[name] for name in names] for names in (kind.image_features, kind.landmark_features))
    place = place | {"key": texts[0]}
    digests = [digest_image(image_bytes) for image_bytes in images]
    for name, image_bytes, digest in zip(kind.image_features, images, digests, strict=True):
        if digest in known:
            continue
        if problem := _find_image_problem(image_bytes, data.image_px):
            findings.add(Kind.IMAGE, f"{name} {problem}", **place)
        elif len(known) < _MAX_NUM_KNOWN:
            known.add(digest)
    if kind == TRIPLETS:
        if min(landmarks) < 0:
            findings.add(Kind.RULE, f"a landmark_id must be 0 or more, got {min(landmarks)}", **place)
        if ids[0] == ids[1] and not data.config_fields.get("positive_may_be_anchor"):
            findings.add(Kind.RULE, "the positive is the anchor itself", **place)
        if landmarks[0] == landmarks[2]:
            findings.add(Kind.RULE, f"the negative shows the anchor's landmark, {landmarks[0]}", **place)
        if ids[2] in ids[:2]:
            other = "anchor" if ids[2] == ids[0] else "positive"
            findings.add(Kind.RULE, f"the negative is the {other} itself", **place)
    return ids, landmarks, digests


def digest_image(image_bytes: bytes) -> int:
    """Returns 64 bits that tell stored images apart."""
    return int.from_bytes(hashlib.blake2b(image_bytes, digest_size=8).digest(), "little")


def _find_image_problem(image_bytes: bytes, image_px: tuple[int, ...] | None) -> str:
    """Returns what is wrong with a JPEG of this height and width, as the rest of a sentence; '' if nothing is."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(image_bytes)
    except (ValueError, KeyError) as error:  # the latter for sampling factors that simplejpeg has no name for
        return f"is no JPEG ({error})"
    if image_px not in (None, (height, width)):  # before it is decoded: a wrong size may be an enormous one
        return f"has {height} x {width} px, and features.json says {' x '.join(map(str, image_px))}"
    try:
        simplejpeg.decode_jpeg(image_bytes, "GRAY", fastdct=True, strict=True)  # the colours need no second look
    except ValueError as error:
        return f"does not decode ({error})"
    return ""
