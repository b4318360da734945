"""All records of a dataset, shard by shard and in parallel: each shard is read once, hashed and checked.

Decoding is what takes time: about as long as reading the same dataset for training does. Each process decodes an image
once, however often it meets it. Processes, because taking records apart holds Python's global lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import functools

from etils import epath
import loky
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.commands.verify.findings import CHECKSUM, COUNT, FILE, Findings
from landmark_triplets_tfds.commands.verify.prepared import INFO_NAME, PreparedData, Shard
from landmark_triplets_tfds.commands.verify.records import (
    RecordChecker,
    RecordContent,
    RecordRules,
    hash_file,
    read_records,
)

# Less than this is done before other processes have started.
_MIN_BYTES_FOR_PROCESSES = 16 << 20  # 16 MiB


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


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What came of a shard.

    Attributes:
      shard: which one.
      sha256: of the file; None if it cannot be read.
      num_records: that it holds, damaged ones included.
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


def check_shards(data: PreparedData, num_processes: int | None = None) -> Iterator[ShardResult]:
    """Checks all shards; yields what comes of each, in their order.

    Args:
      data: the dataset.
      num_processes: None: one for each usable core.
    """
    rules = RecordRules(
        noun=data.noun,
        features=data.features,
        image_px=data.image_px,
        positive_may_be_anchor=bool(data.config_fields.get("positive_may_be_anchor", False)),
    )
    numbers = range(len(data.shards))
    num_processes = min(num_processes or loky.cpu_count(), len(data.shards))
    sizes = [path.stat().length for shard in data.shards if (path := data.folder / shard.name).exists()]
    if num_processes <= 1 or sum(sizes) < _MIN_BYTES_FOR_PROCESSES:
        check = functools.partial(_check_shard, RecordChecker(rules), data.folder, data.file_format)
        yield from map(check, numbers, data.shards)
        return
    with loky.ProcessPoolExecutor(num_processes) as pool:
        yield from pool.map(
            functools.partial(_check_in_process, rules, data.folder, data.file_format), numbers, data.shards
        )


@functools.lru_cache(maxsize=1)
def _checker_of_process(rules: RecordRules) -> RecordChecker:
    """Returns a checker that remembers images from one shard to the next."""
    return RecordChecker(rules)


def _check_in_process(
    rules: RecordRules, folder: epath.Path, file_format: str, number: int, shard: Shard
) -> ShardResult:
    return _check_shard(_checker_of_process(rules), folder, file_format, number, shard)


def _check_shard(
    checker: RecordChecker, folder: epath.Path, file_format: str, number: int, shard: Shard
) -> ShardResult:
    findings = Findings()
    contents: list[RecordContent] = []
    numbers: list[int] = []
    num_records = num_bytes = 0
    path, sha256 = folder / shard.name, None
    try:
        sha256 = hash_file(path)
        for record, problem in read_records(path, file_format, checker.describe_damaged):
            if record is None:
                findings.add(CHECKSUM, problem, file=shard.name, record=num_records)
            else:
                num_bytes += len(record)
                content = checker.check(record, functools.partial(_add, findings, shard.name, num_records))
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
            findings.add(
                COUNT, f"it has {num_records:,} records, and {INFO_NAME} says {shard.num_records:,}", file=shard.name
            )
    records = _as_records(contents, numbers, number, checker.num_images)
    return ShardResult(shard, sha256, num_records, num_bytes, records, findings)


def _add(findings: Findings, file: str, record: int, kind: str, message: str, key: str | None) -> None:
    findings.add(kind, message, file=file, record=record, key=key)


def _as_records(contents: list[RecordContent], numbers: list[int], shard: int, width: int) -> Records:
    shape = (len(contents), width)
    return Records(
        image_ids=np.array([content.image_ids for content in contents], dtype=np.uint64).reshape(shape),
        landmark_ids=np.array([content.landmark_ids for content in contents], dtype=np.int64).reshape(shape),
        digests=np.array([content.digests for content in contents], dtype=np.uint64).reshape(shape),
        shards=np.full(len(contents), shard, dtype=np.int32),
        numbers=np.array(numbers, dtype=np.int64),
    )
