"""Images in tars: the index, what is wrong with tars, and MD5 lists."""

from __future__ import annotations

from collections.abc import Callable
import gzip
import hashlib
import os
import pathlib
import struct
import tarfile
import time
from typing import Any

from etils import epath
import pytest

from landmark_triplets_tfds.common import file_access, progress
from landmark_triplets_tfds.competition import tar_archives
from landmark_triplets_tfds.competition.archive import ArchiveIndex
from landmark_triplets_tfds.competition.selection import find_folder, find_source
from landmark_triplets_tfds.competition.tar_archives import TarSource, md5_of, read_md5_lists
from landmark_triplets_tfds.errors import ArchiveError, UnreadableImageError
from tests.support.archives import make_tar
from tests.support.helpers import time_limit
from tests.support.special_files import SPECIAL_FILES

IDS = [0x0A1B000000000001, 0x0A1B000000000002, 0xFFF0000000000003, 0x1230000000000004]
NAMES = [f"{i:016x}"[0] + "/" + f"{i:016x}"[1] + "/" + f"{i:016x}"[2] + f"/{i:016x}.jpg" for i in IDS]
IMAGES = [bytes([65 + n]) * (700 * n + 1) for n in range(4)]
MEMBERS = list(zip(NAMES, IMAGES, strict=True))


def write_tars(root: pathlib.Path, *tars: bytes) -> pathlib.Path:
    (root / "train").mkdir(parents=True, exist_ok=True)
    (root / "train.csv").write_text("id,url,landmark_id\n" + "".join(f"{i:016x},http://x/y,1\n" for i in IDS))
    for number, content in enumerate(tars or (make_tar(MEMBERS[:2]), make_tar(MEMBERS[2:]))):
        (root / f"train/images_{number:03d}.tar").write_bytes(content)
    return root


def source_of(root: pathlib.Path) -> TarSource:
    source = find_source(epath.Path(root), str(root / "bank"))
    assert isinstance(source, TarSource)
    return source


def index_path(root: pathlib.Path) -> pathlib.Path:
    (path,) = (root / "bank").glob("*.index")
    return path


# --- What is read


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "/", "train/", "./train/"])
def test_members(tmp_path: pathlib.Path, tar_format: int, prefix: str) -> None:
    members = [("a/" * 80 + "long.txt", b"a long name") if tar_format != tarfile.USTAR_FORMAT else ("x", b"x")]
    members += [(prefix + name, content) for name, content in MEMBERS]
    source = source_of(write_tars(tmp_path, make_tar(members, tar_format)))
    assert [source.read(image_id) for image_id in IDS] == IMAGES
    assert source.read_table().num_images == 4


def test_progress_is_shown(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    source_of(write_tars(tmp_path)).prepare(2)
    assert "Indexing archives: 100%" in capsys.readouterr().err
    source_of(tmp_path).prepare(2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "name",
    [
        f"../{NAMES[0]}",
        f"./../{NAMES[0]}",
        f"index/{NAMES[0]}",
        NAMES[0].replace("0/a/1", "0/a/2"),
        NAMES[0].upper(),
        f"{NAMES[0]}.txt",
        os.path.basename(NAMES[0]),
    ],
)
def test_members_outside_the_layout_are_no_images(tmp_path: pathlib.Path, name: str) -> None:
    source = source_of(write_tars(tmp_path, make_tar([(name, b"x"), MEMBERS[1]])))
    assert [source.exists(image_id) for image_id in IDS[:2]] == [False, True]
    assert source.locate(IDS[0]) == f"{tmp_path}/train/images_*.tar/{NAMES[0]}"
    with pytest.raises(UnreadableImageError) as caught:
        source.read(IDS[0])
    assert caught.value.reason == UnreadableImageError.MISSING


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_files_are_images(tmp_path: pathlib.Path, kind: bytes) -> None:
    """A link is not followed, neither within the tar nor out of it."""
    info = tarfile.TarInfo(NAMES[0])
    info.type, info.linkname = kind, "/etc/passwd"
    source = source_of(write_tars(tmp_path, make_tar([(info, b""), MEMBERS[1]])))
    assert [source.exists(image_id) for image_id in IDS[:2]] == [False, True]


def test_of_two_members_with_a_name_the_last_counts(tmp_path: pathlib.Path) -> None:
    """As when tars are extracted one after the other; and the other one again, when the last has gone."""
    root = write_tars(
        tmp_path, make_tar([(NAMES[0], b"1"), (NAMES[0], b"2")]), make_tar([(NAMES[0], b"3"), MEMBERS[1]])
    )
    assert source_of(root).read(IDS[0]) == b"3"
    (root / "train/images_001.tar").unlink()
    assert source_of(root).read(IDS[0]) == b"2"


def test_tars_are_numbered_in_any_way(tmp_path: pathlib.Path) -> None:
    root = write_tars(tmp_path)
    (root / "train/images_001.tar").rename(root / "train/images_123.tar")
    (root / "train/other.tar").write_bytes(b"is not looked at")
    assert [source_of(root).read(image_id) for image_id in IDS] == IMAGES


# --- The index is renewed


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tars that were walked through."""
    names: list[str] = []
    list_images = tar_archives.list_images

    def record(path: str, *arguments: Any, **options: Any) -> Any:
        names.append(os.path.basename(path))
        return list_images(path, *arguments, **options)

    monkeypatch.setattr(tar_archives, "list_images", record)
    return names


def test_only_what_has_changed_is_walked_again(tmp_path: pathlib.Path, walked: list[str]) -> None:
    root = write_tars(tmp_path, *(make_tar([member]) for member in MEMBERS))
    source_of(root).prepare(2)
    assert sorted(walked) == [f"images_00{n}.tar" for n in range(4)]
    walked.clear()
    stamps = [source_of(root).stamp(image_id) for image_id in IDS]
    assert walked == []
    time.sleep(0.02)
    (root / "train/images_001.tar").write_bytes(make_tar([(NAMES[1], b"changed")]))
    (root / "train/images_003.tar").unlink()
    (root / "train/images_004.tar").write_bytes(make_tar([(NAMES[3], b"moved")]))
    source = source_of(root)
    assert [source.read(i) for i in IDS] == [IMAGES[0], b"changed", IMAGES[2], b"moved"]
    assert sorted(walked) == ["images_001.tar", "images_004.tar"]
    assert [source.stamp(i) == stamp for i, stamp in zip(IDS, stamps, strict=True)] == [True, False, True, False]


def test_another_tar_with_the_same_time_changes_the_stamps(tmp_path: pathlib.Path) -> None:
    root = write_tars(tmp_path, make_tar([("x", b""), (NAMES[0], b"12345")]))
    path = root / "train/images_000.tar"
    os.utime(path, (0, 1))
    before = source_of(root).stamp(IDS[0])
    path.write_bytes(make_tar([("x", b""), ("y", bytes(11_000)), (NAMES[0], b"67890")]))
    os.utime(path, (0, 1))
    assert before[0] == 5
    assert source_of(root).stamp(IDS[0]) != before


def test_an_interrupted_walk_keeps_what_was_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, walked: list[str]
) -> None:
    root = write_tars(tmp_path, *(make_tar([member]) for member in MEMBERS))

    list_images = tar_archives.list_images

    def interrupt(path: str, *arguments: Any, **options: Any) -> Any:
        if "images_002" in path:
            raise KeyboardInterrupt
        return list_images(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tar_archives, "list_images", interrupt)
        with pytest.raises(KeyboardInterrupt):
            source_of(root).prepare(1)
    kept = ArchiveIndex.load(str(index_path(root)))
    assert kept is not None
    assert [tar["name"] for tar in kept.archives] == ["images_000.tar", "images_001.tar"]
    walked.clear()
    assert [source_of(root).read(image_id) for image_id in IDS] == IMAGES
    assert walked == ["images_002.tar", "images_003.tar"]


# --- MD5 lists


def md5_line(root: pathlib.Path, number: int) -> str:
    name = f"images_{number:03d}.tar"
    return f"{hashlib.md5((root / 'train' / name).read_bytes()).hexdigest()}  {name}\n"


@pytest.mark.parametrize("where", ["train", ".", "md5sum/train"])
@pytest.mark.parametrize("name", ["md5.images_000.txt", "images.md5", "MD5SUMS", "md5sum.txt"])
def test_md5_lists_are_found_and_name_a_wrong_tar(tmp_path: pathlib.Path, where: str, name: str) -> None:
    root = write_tars(tmp_path)
    (root / where).mkdir(parents=True, exist_ok=True)
    (root / where / name).write_text(md5_line(root, 0) + f"{'0' * 32}  images_001.tar\n")
    wrong = md5_line(root, 1).split()[0]
    expected = f"1 of the 2 tars in {root}/train .*images_001.tar has the MD5 {wrong}; its list says {'0' * 32}"
    with pytest.raises(ArchiveError, match=f"(?s){expected}.*Fetch"):
        source_of(root).prepare(2)
    (root / where / name).write_text(
        md5_line(root, 0) + md5_line(root, 1).upper().replace("IMAGES", "images").replace("TAR", "tar")
    )
    assert source_of(root).read(IDS[2]) == IMAGES[2]


@pytest.mark.parametrize(
    ("where", "lines", "has_wrong"),
    [
        # Hashes are those of the tars in the folder they name, or another one.
        ("index", "{index}  images_000.tar", False),
        ("index", "{train}  images_000.tar", True),
        ("md5sum/index", "{train}  images_000.tar", True),
        ("train", "{train}  images_000.tar", False),
        (".", "{index}  index/images_000.tar\n{train}  train/images_000.tar", False),
        (".", "{train}  ./index/images_000.tar\n{train}  ./train/images_000.tar", True),
        (".", "{train}  images_000.tar", False),  # of train/, since there is only one without a folder
        (".", "{train}  /somewhere/else/images_000.tar", False),
    ],
)
def test_md5_lists_of_several_folders(tmp_path: pathlib.Path, where: str, lines: str, has_wrong: bool) -> None:
    """Tars in all folders have the same names."""
    root = write_tars(tmp_path, make_tar(MEMBERS[:2]))
    (root / "index").mkdir()
    (root / "index/images_000.tar").write_bytes(make_tar(MEMBERS[2:]))
    (root / where).mkdir(parents=True, exist_ok=True)
    hashes = {n: hashlib.md5((root / n / "images_000.tar").read_bytes()).hexdigest() for n in ("train", "index")}
    (root / where / "md5sums.txt").write_text(lines.format(**hashes) + "\n")
    train = source_of(root)
    index = find_folder(train, "index", str(root / "bank"))
    assert isinstance(index, TarSource)
    train.prepare(2)
    if has_wrong:
        with pytest.raises(ArchiveError, match=f"1 of the 1 tars in {root}/index "):
            index.prepare(2)
    else:
        assert [index.read(image_id) for image_id in IDS[2:]] == IMAGES[2:]


@pytest.mark.parametrize("prefix", ["", "./", "index/", "./index/"])
def test_members_of_another_folder(tmp_path: pathlib.Path, prefix: str) -> None:
    root = write_tars(tmp_path)
    (root / "index").mkdir()
    others = [(f"{folder}/{NAMES[0]}", b"no") for folder in ("train", "test", "..", "index/index")]
    tar = make_tar([*((prefix + name, image) for name, image in MEMBERS[1:]), *others])
    (root / "index/images_000.tar").write_bytes(tar)
    index = find_folder(source_of(root), "index", str(root / "bank"))
    assert index.list_images(1).tolist() == sorted(IDS[1:])
    assert [index.read(image_id) for image_id in IDS[1:]] == IMAGES[1:]
    assert index.locate(IDS[1]) == f"{root}/index/images_000.tar/{NAMES[1]}"


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tars that were read as a whole."""
    names: list[str] = []
    md5_of = tar_archives.md5_of

    def record(path: str) -> str:
        names.append(os.path.basename(path))
        return md5_of(path)

    monkeypatch.setattr(tar_archives, "md5_of", record)
    return names


def test_a_tar_is_verified_once(tmp_path: pathlib.Path, verified: list[str], walked: list[str]) -> None:
    root = write_tars(tmp_path)
    source_of(root).prepare(2)
    assert (verified, sorted(walked)) == ([], ["images_000.tar", "images_001.tar"])  # there is no list
    (root / "train/md5.images_000.txt").write_text(md5_line(root, 0))
    walked.clear()
    source_of(root).prepare(2)
    source_of(root).prepare(2)
    assert (verified, walked) == (["images_000.tar"], [])
    (root / "train/md5.images_000.txt").unlink()
    source_of(root).prepare(2)
    assert (verified, walked) == (["images_000.tar"], [])
    time.sleep(0.02)
    (root / "train/images_001.tar").touch()
    assert source_of(root).read(IDS[0]) == IMAGES[0]
    assert (verified, walked) == (["images_000.tar"], ["images_001.tar"])


def test_all_wrong_tars_are_counted_and_the_first_named(tmp_path: pathlib.Path) -> None:
    root = write_tars(tmp_path, *[make_tar([MEMBERS[0]])] * 7, make_tar([MEMBERS[1]]))
    (root / "train/md5.txt").write_text("".join(f"{n:032x} *images_00{n}.tar\n" for n in range(7)))
    with pytest.raises(ArchiveError, match=r"(?s)7 of the 8 tars.*images_000.*images_004.*and 2 more") as caught:
        source_of(root).prepare(2)
    assert "images_005" not in str(caught.value)
    for number in range(7):
        (root / f"train/images_00{number}.tar").unlink()
    assert source_of(root).read(IDS[1]) == IMAGES[1]


def test_lists_of_other_files_and_in_other_forms_mean_nothing(tmp_path: pathlib.Path) -> None:
    root = write_tars(tmp_path)
    (root / "train/md5.images_000.txt").write_bytes(b"\xff\0 not a list\n\n0123  images_000.tar\n" + b"0" * 32 + b"\n")
    (root / "md5.other.txt").write_text(f"{'0' * 32}  train.csv\n")
    (root / "md5.folder.txt").mkdir()
    (root / "notes.txt").write_text(f"{'0' * 32}  images_000.tar\n")
    assert source_of(root).read(IDS[0]) == IMAGES[0]


# --- Tars that cannot be used

TWO = make_tar(MEMBERS)
HEADER_AT = 512 + 512  # of the second member


def damaged_header(data: bytes) -> bytes:
    return data[:HEADER_AT] + b"X" + data[HEADER_AT + 1 :]


def with_size_field(content: bytes) -> Callable[[bytes], bytes]:
    """Changes the size in the second member's header, and its checksum to fit."""

    def change(data: bytes) -> bytes:
        header = bytearray(data[HEADER_AT : HEADER_AT + 512])
        header[124:136] = content
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return data[:HEADER_AT] + bytes(header) + data[HEADER_AT + 512 :]

    return change


def huge_pax_header(data: bytes) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 5 << 30
    return info.tobuf(tarfile.USTAR_FORMAT) + data


WRONG_TARS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "is no tar, is compressed or damaged"),
    "HTML": (lambda data: b"<!DOCTYPE html>" * 100, "is no tar"),
    "compressed": (gzip.compress, "is no tar, is compressed"),
    "cut within a header": (lambda data: data[: HEADER_AT + 100], r"is cut off at byte 1,024"),
    "cut within a member": (
        lambda data: data[: HEADER_AT + 600],
        "is cut off: it ends, after 1,624 bytes, within",
    ),
    "cut between members": (lambda data: data[:HEADER_AT], "is cut off at byte 1,024: there is neither a member"),
    "no end mark": (lambda data: data[: len(data) - len(data) % 512].rstrip(b"\0"), "is (cut off|damaged)"),
    "a damaged header": (damaged_header, "is damaged at byte 1,024: there is neither"),
    "a negative size": (with_size_field(b"\xff" * 8 + struct.pack(">i", -2048)), "is damaged"),
    "a size beyond the end": (with_size_field(b"77777777777\0"), "is cut off"),
    "a size in base 256 beyond all": (with_size_field(b"\x80" + b"\xff" * 11), "is (cut off|damaged)"),
    "a huge header": (huge_pax_header, "is no tar, is compressed or damaged .*header of 5,368,709,120 bytes"),
    "a zeroed header": (
        lambda data: data[:HEADER_AT] + bytes(512) + data[HEADER_AT + 512 :],
        "has data at byte 1,536, behind its end mark at byte 1,024: a header was overwritten",
    ),
    "two tars": (lambda data: data * 2, "has data at byte 10,240, behind its end mark at byte .* several tars"),
    "two tars without what fills them up": (
        lambda data: data.rstrip(b"\0") + bytes(1024) + make_tar([("other", b"x")]),
        "behind its end mark",
    ),
    "a byte at the end": (lambda data: data[:-1] + b"x", "has data at byte 10,239, behind its end mark"),
    "text behind it": (lambda data: data + b"\n", "has data at byte 10,240, behind its end mark"),
    "zeros in place of all": (lambda data: bytes(50_000), "holds 50,000 bytes of zeros from byte 0 on"),
    "zeros in place of what was not fetched": (
        lambda data: data[:HEADER_AT] + bytes(100_000),
        "holds 100,000 bytes of zeros from byte 1,024 on, .*unfinished download",
    ),
    "zeros without end": (
        lambda data: data[:HEADER_AT] + bytes(5_000_000),
        r"holds 2,\d{3},\d{3} bytes of zeros and more from byte 1,024 on",
    ),
    "a large tar of which the rest was not fetched": (
        lambda data: (
            (many := make_tar([(f"{n}", bytes([1]) * 5000) for n in range(100)] + MEMBERS))[:90_112]
            + bytes(len(many) - 90_112)
        ),
        "bytes of zeros from byte 90,112 on",
    ),
    "an image under two names": (
        lambda data: make_tar([MEMBERS[0], (f"train/{NAMES[0]}", b"x")]),
        f"has an image twice, as {NAMES[0]} and as train/{NAMES[0]}",
    ),
    "other members only": (lambda data: make_tar([("x.txt", b"")]), "hold no image a/b/c/<id>.jpg"),
}


@pytest.mark.parametrize(("spoil", "message"), WRONG_TARS.values(), ids=WRONG_TARS)
def test_a_tar_that_cannot_be_used(tmp_path: pathlib.Path, spoil: Callable[[bytes], bytes], message: str) -> None:
    root = write_tars(tmp_path, spoil(TWO))
    with time_limit(10), pytest.raises(ArchiveError, match=message) as caught:
        source_of(root).prepare(2)
    assert f"{root}/train" in str(caught.value)


@pytest.mark.parametrize("record", [512, 10240, 1 << 15, 1 << 20])
def test_tars_are_filled_up_to_a_record(tmp_path: pathlib.Path, record: int) -> None:
    """Of whatever size the program writes."""
    tar = TWO.rstrip(b"\0") + bytes(-len(TWO.rstrip(b"\0")) % 512 + 1024)
    source = source_of(write_tars(tmp_path, tar + bytes(-len(tar) % record)))
    assert [source.read(image_id) for image_id in IDS] == IMAGES


def test_zeros_are_as_published_where_an_md5_list_says_so(tmp_path: pathlib.Path) -> None:
    root = write_tars(tmp_path, TWO + bytes(100_000))
    (root / "train/md5.images_000.txt").write_text(md5_line(root, 0))
    assert [source_of(root).read(image_id) for image_id in IDS] == IMAGES


def test_a_tar_that_changes_while_it_is_walked_through(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tars(tmp_path)
    list_images = tar_archives.list_images

    def change(path: str, *arguments: Any, **options: Any) -> Any:
        found = list_images(path, *arguments, **options)
        os.utime(path, (0, 1))
        return found

    monkeypatch.setattr(tar_archives, "list_images", change)
    with pytest.raises(ArchiveError, match=r"images_000\.tar changes while it is read"):
        source_of(root).prepare(1)


def test_a_chain_of_headers_is_an_error(tmp_path: pathlib.Path) -> None:
    """tarfile calls itself for each header that belongs to the next one."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5
    chain = (info.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")) * 3000
    with pytest.raises(ArchiveError, match="damaged"):
        source_of(write_tars(tmp_path, chain + TWO)).prepare(2)


@pytest.mark.parametrize("make", SPECIAL_FILES.values(), ids=SPECIAL_FILES)
def test_what_is_no_file_is_no_tar(tmp_path: pathlib.Path, make: Callable[[pathlib.Path], None]) -> None:
    """Neither when it is indexed nor when it takes a tar's place meanwhile."""
    root = write_tars(tmp_path)
    source = source_of(root)
    source.prepare(2)
    path = root / "train/images_000.tar"
    path.unlink()
    make(path)
    with time_limit(10), pytest.raises(UnreadableImageError, match=f"{path} is a pipe, a device or a socket"):
        source.read(IDS[0])
    with time_limit(10), pytest.raises(ArchiveError, match=f"{path} is a pipe, a device or a socket"):
        source_of(root).prepare(2)


def test_a_tar_that_cannot_be_opened(tmp_path: pathlib.Path) -> None:
    root = write_tars(tmp_path)
    (root / "train/images_000.tar").unlink()
    (root / "train/images_000.tar").symlink_to("nowhere")
    with pytest.raises(ArchiveError, match=r"cannot be opened .*images_000.tar"):
        source_of(root).prepare(2)


# --- Members that cannot be read


SAME_SIZES = [(NAMES[0], b"A" * 900), (NAMES[1], b"B" * 900), (NAMES[2], b"C" * 900)]
OTHER_IMAGES = [(name, content.lower()) for name, content in SAME_SIZES]

CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:1700],
    "cut to nothing": lambda data: b"",
    "longer": lambda data: data + bytes(10240),
    "members exchanged": lambda data: make_tar([SAME_SIZES[1], SAME_SIZES[0], SAME_SIZES[2]]),
    "the first member gone": lambda data: make_tar(SAME_SIZES[1:]),
    "a member in front": lambda data: make_tar([("x", b""), *SAME_SIZES]),
    "another name": lambda data: data.replace(NAMES[0].encode(), NAMES[3].encode()),
    "another size": lambda data: make_tar([(NAMES[0], b"A" * 901), *SAME_SIZES[1:]]),
    "another checksum": lambda data: data[:150] + b"7" + data[151:],
    "zeros": lambda data: bytes(len(data)),
    "no tar": lambda data: b"x" * len(data),
}


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_tar_that_changes_never_gives_other_images(
    tmp_path: pathlib.Path, change: Callable[[bytes], bytes], elsewhere: bool
) -> None:
    """Whatever its time is: a restored one, or on other machines, where times may differ."""
    root = write_tars(tmp_path, make_tar(SAME_SIZES))
    source = source_of(root).share(epath.Path(tmp_path), elsewhere=elsewhere)
    path = root / "train/images_000.tar"
    changed = path.stat()
    path.write_bytes(change(path.read_bytes()))
    if not elsewhere:
        os.utime(path, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    details = []
    for image_id, (_, content) in zip(IDS, SAME_SIZES, strict=False):
        try:
            assert source.read(image_id) == content
        except UnreadableImageError as error:
            details.append(error.detail)
    assert all(str(path) in detail for detail in details)
    assert details or elsewhere


@pytest.mark.parametrize(
    "change", [lambda data: make_tar(OTHER_IMAGES), lambda data: data.replace(b"A" * 900, b"x" * 900)]
)
def test_images_that_change_alone_are_known_by_the_time_of_the_tar(
    tmp_path: pathlib.Path, change: Callable[[bytes], bytes]
) -> None:
    root = write_tars(tmp_path, make_tar(SAME_SIZES))
    source = source_of(root)
    source.prepare(1)
    path = root / "train/images_000.tar"
    time.sleep(0.02)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UnreadableImageError, match=f"{path} has changed meanwhile"):
        source.read(IDS[0])
    assert source_of(root).read(IDS[0]) != SAME_SIZES[0][1]  # the next one knows


@pytest.mark.parametrize("fields", [["offset"], ["crc"], ["offset", "crc"], ["image_id"]])
def test_an_index_that_is_wrong_never_gives_other_images(tmp_path: pathlib.Path, fields: list[str]) -> None:
    """Even if its checksum is right."""
    root = write_tars(tmp_path, make_tar(SAME_SIZES))
    source_of(root).prepare(1)
    index = ArchiveIndex.load(str(index_path(root)))
    assert index is not None
    members = index.members.copy()
    for field in fields:
        members[field] = members[field][[1, 0, 2]]
    ArchiveIndex.of(members, index.archives).save(str(index_path(root)))
    source = source_of(root)
    for image_id in IDS[:2]:
        with pytest.raises(UnreadableImageError, match=f"{image_id:016x}.jpg is not where it was"):
            source.read(image_id)
    assert source.read(IDS[2]) == SAME_SIZES[2][1]


def test_names_in_extended_headers(tmp_path: pathlib.Path) -> None:
    """The header in front of the data may say another one."""
    info = tarfile.TarInfo("short")
    info.pax_headers = {"path": NAMES[0]}
    source = source_of(write_tars(tmp_path, make_tar([(info, IMAGES[0]), MEMBERS[1]], tarfile.PAX_FORMAT)))
    assert [source.read(image_id) for image_id in IDS[:2]] == IMAGES[:2]


def test_a_tar_that_is_gone(tmp_path: pathlib.Path) -> None:
    root = write_tars(tmp_path, TWO)
    source = source_of(root)
    source.prepare(2)
    (root / "train/images_000.tar").unlink()
    with pytest.raises(UnreadableImageError) as caught:
        source.read(IDS[0])
    assert caught.value.reason == UnreadableImageError.MISSING


def test_a_member_too_large_to_be_an_image(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_access, "MAX_FILE_BYTES", 100)
    source = source_of(write_tars(tmp_path))
    assert source.read(IDS[0]) == IMAGES[0]
    with pytest.raises(UnreadableImageError) as caught:
        source.read(IDS[1])
    assert caught.value.reason == UnreadableImageError.FILE_TOO_LARGE


# --- MD5 lists


MD5 = "0123456789abcdef" * 2
OTHER = "f" * 32


def read(root: pathlib.Path, folder: str = "train") -> tuple[dict[str, str], list[str]]:
    return read_md5_lists(epath.Path(root), folder)


def read_text(root: pathlib.Path, text: str | bytes, name: str = "md5.txt") -> tuple[dict[str, str], list[str]]:
    (root / "train").mkdir(exist_ok=True)
    (root / "train" / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read(root)


@pytest.mark.parametrize("where", ["train", ".", "md5sum/train"])
@pytest.mark.parametrize(
    "name",
    [
        "md5.images_000.txt",
        "images.md5",
        "MD5SUMS",
        "md5sum.txt",
        "MD5SUMS.txt",
        "images_000.tar.md5",
        "train_md5.txt",
        "a.md5sum",
        "A.MD5",
    ],
)
def test_lists_are_found(tmp_path: pathlib.Path, where: str, name: str) -> None:
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    (tmp_path / where / name).write_text(f"{MD5.upper()} *images_000.tar\n")
    assert read(tmp_path) == ({"images_000.tar": MD5}, [])


@pytest.mark.parametrize(
    "line",
    [
        f"{MD5}  images_000.tar",
        f"{MD5} *images_000.tar",
        f"{MD5} images_000.tar",  # `md5 -r`, on macOS and BSD
        f"{MD5}\timages_000.tar",
        f"  {MD5.upper()}  images_000.tar  ",
        f"{MD5}  ./images_000.tar",
        f"{MD5}  /data/my copy/train/images_000.tar",
        f"{MD5} *C:\\data\\train\\images_000.tar",
        f"\\{MD5}  /a\\nb\\\\c/train/images_000.tar",
        f"MD5 (images_000.tar) = {MD5}",
        f"MD5 (train/images_000.tar) = {MD5.upper()}",
        f"MD5 (copy (2)/images_000.tar) = {MD5}",
        f"\\MD5 (a\\nb/images_000.tar) = {MD5}",
        f"MD5(images_000.tar)= {MD5}",
        f"md5(./images_000.tar)={MD5}",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_as_tools_write_them(tmp_path: pathlib.Path, line: str, end: str, encoding: str) -> None:
    assert read_text(tmp_path, (line + end).encode(encoding)) == ({"images_000.tar": MD5}, [])


@pytest.mark.parametrize(
    ("where", "line", "folder"),
    [
        ("index", "images_000.tar", "index"),
        ("md5sum/index", "images_000.tar", "index"),
        ("md5sum/index", "train/images_000.tar", None),  # a list that is looked at for index/ only
        (".", "images_000.tar", "train"),
        (".", "index/images_000.tar", "index"),
        ("train", "/data/test/images_000.tar", None),
    ],
)
def test_lists_of_several_folders(tmp_path: pathlib.Path, where: str, line: str, folder: str | None) -> None:
    """Tars in all folders have the same names."""
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    (tmp_path / where / "MD5SUMS").write_text(f"MD5 ({line}) = {MD5}\n")
    for each in ("train", "index", "test"):
        assert read(tmp_path, each) == ({"images_000.tar": MD5} if each == folder else {}, [])


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        ("<html>404</html>", "md5.txt has 1 lines that are not understood, such as '<html>404</html>'. Expected"),
        (MD5, f"has 1 lines that are not understood, such as '{MD5}'"),
        (f"{MD5[:-1]}  images_000.tar", "not understood"),
        (f"{MD5}0  images_000.tar", "not understood"),
        (f"{MD5}  ", "not understood"),
        (f"SHA256 (images_000.tar) = {MD5 * 2}", "not understood"),
        (f"MD5 hash of images_000.tar:\r\n{MD5}\r\nCertUtil: done.\r\n", "has 3 lines that are not understood"),
        (f"{MD5}  images_000.tar".encode("utf-16-le"), "not understood"),
        (b"\xff\0\1", "not understood"),
        ("", "names no tar images_<number>.tar, so it verifies nothing"),
        ("# a comment\n; another\n\n", "names no tar"),
        (f"{MD5}  train.csv\nMD5 (images_000.tar.gz) = {MD5}\n", "names no tar"),
        ("\n" * 2_000_000, "is too large for an MD5 list of tars"),
    ],
)
def test_a_list_that_verifies_nothing_is_named(tmp_path: pathlib.Path, text: str | bytes, remark: str) -> None:
    md5_of_name, remarks = read_text(tmp_path, text)
    assert md5_of_name == {}
    assert len(remarks) == 1
    assert remarks[0].startswith(f"{tmp_path}/train/md5.txt ")
    assert remark in remarks[0]


def test_one_line_that_is_not_understood_is_shown(tmp_path: pathlib.Path) -> None:
    found, remarks = read_text(tmp_path, f"{MD5}  images_000.tar\n{'x' * 500_000} y\n{MD5}  images_001.tar\n")
    assert found == {"images_000.tar": MD5, "images_001.tar": MD5}
    assert len(remarks) == 1
    assert "has 1 lines that are not understood, such as 'xxx" in remarks[0]
    assert len(remarks[0]) < 500


def test_lists_that_contradict_each_other(tmp_path: pathlib.Path) -> None:
    read_text(tmp_path, f"{MD5}  images_000.tar\n", "a.md5")
    found, remarks = read_text(tmp_path, f"{OTHER}  images_000.tar\n", "b.md5")
    assert found == {"images_000.tar": MD5}
    assert remarks == [f"{tmp_path}/train/b.md5 has another MD5 of images_000.tar than a list before it, which counts."]


@pytest.mark.parametrize("spoil", [*SPECIAL_FILES.values(), lambda path: path.symlink_to("nowhere")])
def test_a_list_that_cannot_be_read(tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], None]) -> None:
    spoil(tmp_path / "md5.txt")
    with time_limit(10), pytest.raises(ArchiveError, match=f"The MD5 list {tmp_path}/md5.txt cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("text", [f"{MD5}  a{' ' * 900_000}b", "MD5 (" + ")" * 900_000, "MD5 (" + ") " * 450_000])
def test_odd_lines_take_no_time(tmp_path: pathlib.Path, text: str) -> None:
    with time_limit(10):
        assert read_text(tmp_path, text)[0] == {}


def test_folders_and_other_files_are_no_lists(tmp_path: pathlib.Path) -> None:
    (tmp_path / "md5.txt").mkdir()
    assert read_text(tmp_path, f"{MD5}  images_000.tar", "notes.txt") == ({}, [])


def test_md5_of(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 3_000_000)
    assert md5_of(str(tmp_path / "x")) == hashlib.md5(b"x" * 3_000_000).hexdigest()
