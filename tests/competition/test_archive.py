"""What holds for every kind of copy: the same dataset, threads, processes, changes, and who can see the index."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import json
import multiprocessing
import os
import pathlib
import pickle
import shutil
import time
import zipfile

from etils import epath
import numpy as np
import pytest

from landmark_triplets_tfds.build.build import Build
from landmark_triplets_tfds.competition import zip_archive
from landmark_triplets_tfds.competition.archive import ArchiveIndex
from landmark_triplets_tfds.competition.selection import find_folder, find_source
from landmark_triplets_tfds.competition.tables import read_landmark_table
from tests.support.archives import COPIES, image_files, pack_tars, pack_zip, write_clean_table
from tests.support.competition import DUMMY_DATA, Competition, build, custom_config, shard_hashes
from tests.support.helpers import time_limit
from tests.support.special_files import SPECIAL_FILES

CONTENT = {int(path.stem, 16): path.read_bytes() for path in image_files(DUMMY_DATA)}
ABSENT = 0x0123456789ABCDEF

ARCHIVES = [name for name in COPIES if name != "folder"]


@pytest.fixture(params=COPIES)
def copy(request, tmp_path):
    return COPIES[request.param](DUMMY_DATA, tmp_path / "copy")


@pytest.fixture(params=["zip, deflated", "tars"])
def archives(request, tmp_path):
    return COPIES[request.param](DUMMY_DATA, tmp_path / "copy")


def source_of(folder, bank):
    return find_source(epath.Path(folder), str(bank))


def index_of_train(bank):
    (path,) = (path for path in bank.glob("*.index") if not path.name.startswith(("index-", "test-")))
    return path


def test_every_copy_gives_the_same_dataset(tmp_path, bank):
    """Byte for byte, the recorded table included; and extracts nothing."""
    config = custom_config(resolution=24, images_per_landmark=None)
    wanted = build(tmp_path / "data", config)
    for number, make in enumerate(COPIES.values()):
        copy = make(DUMMY_DATA, tmp_path / f"copy{number}")
        files = sorted(copy.rglob("*"))
        built = build(tmp_path / f"data{number}", config, copy)
        assert shard_hashes(built) == shard_hashes(wanted)
        assert built.info.metadata == wanted.info.metadata
        assert sorted(copy.rglob("*")) == files
        build(tmp_path / f"data{number}", config, DUMMY_DATA)  # prepared from another kind of copy: it is the same
    assert sum(path.stat().st_size for path in bank.glob("*.index")) < 64 * 45 * len(ARCHIVES) + 2000 * len(ARCHIVES)


@pytest.mark.parametrize("name", [b"caf\xe9", "caf\xe9 \u2588".encode(), b"run[1]*", b" "])
@pytest.mark.parametrize("kind", ["folder", "zip, deflated", "tars"])
def test_paths_need_not_be_utf_8(tmp_path, bank, kind, name):
    """Neither that of the files nor that of the cache."""
    try:
        (folder := pathlib.Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))).mkdir()
    except (OSError, UnicodeError):
        pytest.skip("no such name can be here")
    copy = COPIES[kind](DUMMY_DATA, folder / "copy")
    source = source_of(copy, folder / "bank")
    source.prepare(2)
    assert {image_id: source.read(image_id) for image_id in CONTENT} == CONTENT
    assert source.read_table().num_images == len(CONTENT)
    again = pickle.loads(pickle.dumps(source_of(copy, folder / "bank").share(epath.Path(folder))))
    assert {image_id: again.read(image_id) for image_id in CONTENT} == CONTENT
    assert find_folder(source, "test", str(folder / "bank")).list_images(1).size
    assert str(folder) in source.locate(ABSENT)


def test_table_and_images(copy, bank):
    source = source_of(copy, bank)
    assert source.read_table().fingerprint == read_landmark_table(epath.Path(DUMMY_DATA / "train.csv")).fingerprint
    assert {image_id: source.read(image_id) for image_id in CONTENT} == CONTENT
    assert all(source.exists(image_id) for image_id in CONTENT)
    assert not source.exists(ABSENT)
    assert source.stamp(ABSENT) == (-1, -1)
    assert all(source.stamp(image_id)[0] == len(content) for image_id, content in CONTENT.items())
    ids = np.array([ABSENT, *CONTENT, 0, 2**64 - 1], dtype=np.uint64)
    found = source.find_present(ids, 2)
    assert found.tolist() == [False, *[True] * len(CONTENT), False, False]
    assert not source.is_remote


def test_folders_without_labels(copy, bank, tmp_path):
    """In every kind of copy; also from the index that machines share."""
    source = source_of(copy, bank)
    for folder, count in (("index", 6), ("test", 3)):
        found = find_folder(source, folder, str(bank))
        found.prepare(2)
        content = {int(path.stem, 16): path.read_bytes() for path in image_files(DUMMY_DATA, folder)}
        ids = found.list_images(2)
        assert ids.tolist() == sorted(content)
        assert len(ids) == count
        for each in (found, found.share(epath.Path(tmp_path)), pickle.loads(pickle.dumps(found))):
            assert {image_id: each.read(image_id) for image_id in content} == content
            assert f"/{folder}/" in each.locate(min(content))
            assert not each.exists(next(iter(CONTENT)))
        assert not any(source.exists(image_id) for image_id in content)


def test_other_folders_of_a_zip_are_found_with_the_first(tmp_path, bank, monkeypatch):
    """Its directory is read once for all of them, also where a folder holds nothing."""
    competition = Competition(tmp_path / "competition")
    shutil.rmtree(competition.folder / "test")
    copy = pack_zip(competition.folder, tmp_path / "copy").parent
    source = source_of(copy, bank)
    source.prepare(2)
    monkeypatch.setattr(
        "landmark_triplets_tfds.competition.zip_archive.index_zip", lambda *arguments: pytest.fail("indexed again")
    )
    assert [len(find_folder(source, folder, str(bank)).list_images(1)) for folder in ("index", "test")] == [
        6,
        0,
    ]


def test_locations_name_archive_and_member(tmp_path, bank):
    image_id = image_files(DUMMY_DATA)[1].stem
    member = f"{image_id[0]}/{image_id[1]}/{image_id[2]}/{image_id}.jpg"
    locate = {
        name: source_of(COPIES[name](DUMMY_DATA, tmp_path / name), bank).locate(int(image_id, 16)) for name in COPIES
    }
    assert locate["zip, stored"] == f"{tmp_path}/zip, stored/landmark-retrieval-2020.zip/train/{member}"
    assert locate["tars"] == f"{tmp_path}/tars/train/images_001.tar/{member}"


def test_many_threads_read_at_once(copy, bank):
    source = source_of(copy, bank)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(source.read, list(CONTENT) * 20)) == list(CONTENT.values()) * 20


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes(archives, bank, method):
    """A source is sent as paths, prepared or not, and the index is not made again."""
    source = source_of(archives, bank)
    source.prepare(2)
    assert len(pickle.dumps(source)) < 1000
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        assert list(pool.map(source.read, CONTENT)) == list(CONTENT.values())


def forbid_indexing(monkeypatch, source):
    def fail(*arguments):
        raise AssertionError("indexed again")

    monkeypatch.setattr(type(source), "_make_index", fail)


def exchange_offsets(path):
    """As if two members were each where the other one is."""
    index = ArchiveIndex.load(str(path))
    rows = np.flatnonzero(index.members["size"] == index.members["size"].max())
    offsets = index.members["offset"].tolist()
    content = path.read_bytes()
    one, two = (offset.to_bytes(8, "little") for offset in (offsets[rows[0]], offsets[rows[0] - 1]))
    path.write_bytes(content.replace(one, b"--------").replace(two, one).replace(b"--------", two))


def put_in_place(path, make):
    path.unlink()
    make(path)


INDEX_DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"{"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "zeros at its end": lambda path: path.write_bytes(path.read_bytes()[:-100] + bytes(100)),
    "text": lambda path: path.write_text("[]"),
    "JSON": lambda path: path.write_text('{"format": 3}\n'),
    "of an earlier version": lambda path: path.write_text('{"format": 2, "num_members": 0, "archives": []}\n'),
    "a digit of its description": lambda path: path.write_bytes(path.read_bytes().replace(b"mtime_ns", b"mtime_nz")),
    "offsets exchanged": exchange_offsets,
    "a folder": lambda path: put_in_place(path, pathlib.Path.mkdir),
    "a dangling link": lambda path: put_in_place(path, lambda path: path.symlink_to("nowhere")),
    **{name: lambda path, make=make: put_in_place(path, make) for name, make in SPECIAL_FILES.items()},
}


@pytest.mark.parametrize("damage", INDEX_DAMAGES.values(), ids=INDEX_DAMAGES)
def test_an_index_that_is_damaged_is_made_again_with_a_line(archives, bank, damage, capsys):
    source_of(archives, bank).prepare(2)
    path = index_of_train(bank)
    damage(path)
    source = source_of(archives, bank)
    with time_limit(10):
        source.prepare(2)
    assert {image_id: source.read(image_id) for image_id in CONTENT} == CONTENT
    assert damage is INDEX_DAMAGES["a dangling link"] or str(path) in capsys.readouterr().out
    assert path.is_dir() or ArchiveIndex.load(str(path)) is not None


def test_every_flipped_bit_of_an_index_is_noticed(archives, bank, capsys):
    source_of(archives, bank).prepare(2)
    path = index_of_train(bank)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 37):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert ArchiveIndex.load(str(path)) is None
    assert f"made anew: {path} is damaged" in capsys.readouterr().out


def test_an_index_is_not_trusted_by_a_source_that_keeps_none(archives, bank, monkeypatch):
    source_of(archives, bank).prepare(2)
    monkeypatch.setattr(ArchiveIndex, "load", lambda *arguments, **options: pytest.fail("an index was read"))
    source = find_source(epath.Path(archives), "off")
    source.prepare(2)
    assert find_folder(source, "test", "off").list_images(1).size
    assert {image_id: source.read(image_id) for image_id in CONTENT} == CONTENT


def test_what_becomes_of_the_kept_index_does_not_matter_to_a_build(tmp_path, bank, monkeypatch):
    """Workers have a copy of their own, whenever they start."""
    copy = pack_zip(DUMMY_DATA, tmp_path / "copy").parent
    config = custom_config(resolution=16, images_per_landmark=None)
    wanted = shard_hashes(build(tmp_path / "data1", config, copy))
    look_up = Build._look_up

    def spoil(*arguments):
        look_up(*arguments)
        index_of_train(bank).write_bytes(b"")

    monkeypatch.setattr(Build, "_look_up", spoil)
    monkeypatch.setattr(zip_archive, "index_zip", lambda *arguments: pytest.fail("indexed again"))
    assert shard_hashes(build(tmp_path / "data2", config, copy)) == wanted


def test_an_index_that_was_left_for_a_process_and_is_gone_is_made_again(archives, bank, tmp_path):
    shared = source_of(archives, bank).share(epath.Path(tmp_path))
    for path in [*bank.glob("*.index"), *tmp_path.glob("*.index")]:
        path.unlink()
    assert {image_id: shared.read(image_id) for image_id in CONTENT} == CONTENT


def test_machines_that_see_another_cache_share_the_index(archives, bank, tmp_path, monkeypatch):
    source = source_of(archives, bank)
    shared = source.share(epath.Path(tmp_path))
    for path in bank.glob("*.index"):
        path.unlink()
    copy = pickle.loads(pickle.dumps(shared))
    forbid_indexing(monkeypatch, source)
    assert {image_id: copy.read(image_id) for image_id in CONTENT} == CONTENT
    assert not list(bank.glob("*.index"))


def test_what_has_not_changed_is_not_indexed_again(archives, bank, monkeypatch):
    source_of(archives, bank).prepare(2)
    path = index_of_train(bank)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    source = source_of(archives, bank)
    source.prepare(2)
    assert source.read(next(iter(CONTENT))) == next(iter(CONTENT.values()))
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


@pytest.mark.parametrize("kind", ["zip, deflated", "tars"])
def test_a_changed_archive_is_noticed(tmp_path, bank, kind):
    """By the index, and by the stamps that the bank of thumbnails compares."""
    competition = Competition(tmp_path / "competition")
    copy = tmp_path / "copy"
    pack = {"zip, deflated": pack_zip, "tars": pack_tars}[kind]
    pack(competition.folder, copy)
    config = custom_config(resolution=16, images_per_landmark=None)
    first = build(tmp_path / "data1", config, copy)
    changed = competition.ids()[0]
    competition.path(changed).write_bytes(competition.path(competition.ids()[1]).read_bytes())
    time.sleep(0.02)
    pack(competition.folder, copy)
    second = build(tmp_path / "data2", config, copy)
    assert shard_hashes(second) == shard_hashes(build(tmp_path / "data3", config, competition.folder))
    assert shard_hashes(second) != shard_hashes(first)


def test_stamps_of_a_copied_zip_are_the_same(tmp_path, bank):
    one, two = (source_of(pack_zip(DUMMY_DATA, tmp_path / name).parent, bank) for name in "ab")
    assert [one.stamp(image_id) for image_id in CONTENT] == [two.stamp(image_id) for image_id in CONTENT]


def test_without_a_bank_no_index_is_kept(archives, bank, tmp_path):
    source = find_source(epath.Path(archives), "off")
    source.prepare(2)
    assert source.read(next(iter(CONTENT))) == next(iter(CONTENT.values()))
    assert not [*bank.iterdir(), *tmp_path.rglob("*.index")]


def read_one(source):
    source.prepare(2)
    assert source.read(next(iter(CONTENT))) == next(iter(CONTENT.values()))
    assert pickle.loads(pickle.dumps(source)).exists(next(iter(CONTENT)))


def says_what_to_set(capsys):
    said = capsys.readouterr().out
    return "is kept for this build only" in said and "Set LANDMARK_TRIPLETS_BANK to a folder that can be" in said


@pytest.mark.parametrize("folder", ["file", "file/below", "gs://bucket/bank", "/proc/nowhere", "x" * 300])
def test_where_the_cache_cannot_be_written(archives, tmp_path, capsys, monkeypatch, folder):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    read_one(find_source(epath.Path(archives), folder))
    assert says_what_to_set(capsys)


@pytest.mark.parametrize("folder", [None, "~/bank"])
def test_without_a_home(archives, tmp_path, capsys, monkeypatch, folder, no_home):
    monkeypatch.chdir(tmp_path)
    read_one(find_source(epath.Path(archives), folder))
    assert says_what_to_set(capsys)
    assert not list(tmp_path.glob("~*"))


@pytest.mark.parametrize("kind", ["zip, deflated", "tars"])
def test_remote_copies(tmp_path, bank, monkeypatch, kind):
    """Through epath, which here opens local files: what differs is how files are opened, measured and mapped."""
    copy = COPIES[kind](DUMMY_DATA, tmp_path / "copy")
    monkeypatch.setattr("landmark_triplets_tfds.common.file_access.is_remote", lambda path: True)
    source = source_of(copy, bank)
    assert source.is_remote
    assert {image_id: source.read(image_id) for image_id in CONTENT} == CONTENT
    again = source_of(copy, bank)
    assert again.read_table().num_images == len(CONTENT)
    assert again.share(epath.Path(tmp_path)).read(next(iter(CONTENT))) == next(iter(CONTENT.values()))


@pytest.mark.parametrize("name", ["train_clean.csv", "train.csv"])
@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_the_clean_table(tmp_path, bank, kind, name):
    """In the order of its lines, whatever its name is: landmark by landmark, as landmarks first occur here."""
    copy = COPIES[kind](DUMMY_DATA, tmp_path / "copy")
    table = read_landmark_table(epath.Path(copy / "train.csv"))
    (copy / "train.csv").unlink()
    write_clean_table(table, copy / name)
    landmarks = table.landmark_ids.tolist()
    grouped = table.image_ids[np.argsort([landmarks.index(landmark) for landmark in landmarks], kind="stable")]
    assert source_of(copy, bank).read_table().image_ids.tolist() == grouped.tolist()


def test_permissions_of_the_index_are_usual(archives, bank):
    source_of(archives, bank).prepare(1)
    path = index_of_train(bank)
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_an_image_that_is_fetched_again_is_read_again(tmp_path, bank, capsys):
    """What was unreadable in a damaged zip is not remembered, though the whole zip has the same size and CRC for it."""
    path = pack_zip(DUMMY_DATA, tmp_path / "copy", zipfile.ZIP_STORED)
    config = custom_config(resolution=16, images_per_landmark=None)
    whole = path.read_bytes()
    image = CONTENT[min(CONTENT)]
    path.write_bytes(whole.replace(image, image[:-100] + bytes(100)))
    damaged = build(tmp_path / "data1", config, path.parent)
    assert json.loads((damaged.data_path / "build_report.json").read_text())["unreadable_images"]
    time.sleep(0.02)
    path.write_bytes(whole)
    again = build(tmp_path / "data2", config, path.parent)
    assert shard_hashes(again) == shard_hashes(build(tmp_path / "data3", config))
