"""Files that mining reads: what is accepted, and what messages say about everything else."""

from etils import epath
import numpy as np
import pytest

from landmark_triplets_tfds.errors import EmbeddingsError
from landmark_triplets_tfds.mining.embeddings import landmarks_of, read_embeddings, read_image_ids
from tests.support.helpers import landmark_table, time_limit
from tests.support.special_files import SPECIAL_FILES

IDS = [0x0123456789ABCDEF, 0xFFFFFFFFFFFFFFFF, 0]
TEXTS = [f"{image_id:016x}" for image_id in IDS]


def read_three(path):
    return read_embeddings(path, 3, "there are 3 images.")


@pytest.fixture
def path(tmp_path):
    return epath.Path(tmp_path) / "file.npy"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f4"])
def test_embeddings_are_mapped(path, dtype):
    np.save(path, np.arange(6).reshape(3, 2).astype(dtype))
    embeddings = read_three(path)
    assert isinstance(embeddings, np.memmap)
    assert embeddings.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"There is no .*file\.npy\. Expected a file that `np\.save\(path, embeddings\)` has"),
        (lambda path: path.mkdir(), "is not a .npy file with plain numbers, or is damaged"),
        (lambda path: path.write_bytes(b""), "is not a .npy file with plain numbers, or is damaged"),
        (lambda path: path.write_bytes(b"id,landmark_id\n"), "is not a .npy file with plain numbers, or is damaged"),
        (lambda path: np.save(path, np.array([None])), "is not a .npy file with plain numbers, or is damaged"),
        (lambda path: np.savez(path.open("wb"), a=np.ones(1)), "holds several arrays"),
        (lambda path: np.save(path, np.ones(3, np.float32)), r"file\.npy must have the shape .*, got \[3\]"),
        (lambda path: np.save(path, np.ones((3, 2))), r"file\.npy must hold float16 or float32, got float64.*astype"),
        (
            lambda path: np.save(path, np.ones((2, 2), np.float32)),
            r"file\.npy has 2 rows, but there are 3 images\. Row i must be",
        ),
    ],
)
def test_embeddings_errors(path, write, message):
    write(path)
    with pytest.raises(EmbeddingsError, match=message):
        read_three(path)


@pytest.mark.parametrize("kind", SPECIAL_FILES)
@pytest.mark.parametrize("name", ["x.npy", "x.txt"])
def test_what_is_no_file_is_refused(tmp_path, kind, name):
    SPECIAL_FILES[kind](tmp_path / name)
    path = epath.Path(tmp_path / name)
    for read in (read_three, read_image_ids):
        with time_limit(10), pytest.raises(EmbeddingsError, match=rf"{path} is a pipe, a device or a socket"):
            read(path)


def test_an_array_that_no_memory_holds(path):
    header = b"{'descr': '<u8', 'fortran_order': False, 'shape': (1000000000000000,), }\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    for read in (read_three, read_image_ids):
        with pytest.raises(EmbeddingsError, match=r"file\.npy is not a .npy file with plain numbers, or is damaged"):
            read(path)


def test_embeddings_that_were_cut_off(path):
    np.save(path, np.ones((100, 64), np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EmbeddingsError, match=r"file\.npy is not a .npy file with plain numbers, or is damaged"):
        read_three(path)


def test_remote_embeddings():
    with pytest.raises(EmbeddingsError, match=r"gs://bucket/e\.npy is not on this machine"):
        read_three(epath.Path("gs://bucket/e.npy"))


@pytest.mark.parametrize(("ids", "dtype"), [(IDS, np.uint64), (IDS, ">u8"), (TEXTS, "U16"), (TEXTS, "S16")])
def test_ids_in_an_array(path, ids, dtype):
    np.save(path, np.array(ids, dtype=dtype))
    image_ids = read_image_ids(path)
    assert image_ids.dtype == np.uint64
    assert image_ids.tolist() == IDS


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(TEXTS),
        "\n".join(TEXTS) + "\n",
        "\ufeff" + "\r\n".join(TEXTS) + "\r\n\r\n",
        "\n\n" + " \r".join(TEXTS),
    ],
)
def test_ids_in_a_text(tmp_path, content):
    path = epath.Path(tmp_path) / "ids.txt"
    path.write_bytes(content.encode())
    assert read_image_ids(path).tolist() == IDS


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(IDS[:1], np.int64), "must hold uint64, or texts of 16 hex digits, got int64"),
        (np.array([IDS], np.uint64), r"must have the shape \[num_images\], got \[1, 3\]"),
        (np.array([], np.uint64), "holds no ids"),
        (np.array([*TEXTS, "abc"]), r"file\.npy, row 3: an id must be 16 hex digits .0-9, a-f., got 'abc'"),
        (np.array([1, 2, 3, 2, 1], np.uint64), "row 3: image 0000000000000002 is there already, in row 1"),
    ],
)
def test_ids_in_a_wrong_array(path, array, message):
    np.save(path, array)
    with pytest.raises(EmbeddingsError, match=message):
        read_image_ids(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"ids\.txt holds no ids"),
        (b"\n\n", r"ids\.txt holds no ids"),
        (b"id\n" + TEXTS[0].encode(), r"ids\.txt, line 1: an id must be 16 hex digits .0-9, a-f., got 'id'"),
        (TEXTS[0].encode() + b"\n\n0123456789ABCDEF", r"ids\.txt, line 3: .* got '0123456789ABCDEF'"),
        (TEXTS[0].encode() + b",7", r"ids\.txt, line 1: .* got '0123456789abcdef,7'"),
        (b"\xff\xfe\x00\n", r"ids\.txt, line 1: "),
        ((TEXTS[0] + "\n\n" + TEXTS[0]).encode(), r"line 3: image 0123456789abcdef is there already, in line 1"),
    ],
)
def test_ids_in_a_wrong_text(tmp_path, content, message):
    path = epath.Path(tmp_path) / "ids.txt"
    path.write_bytes(content)
    with pytest.raises(EmbeddingsError, match=message):
        read_image_ids(path)


def test_there_is_no_file_of_ids(tmp_path):
    with pytest.raises(EmbeddingsError, match=r"ids\.txt cannot be read .*Expected is text, an image id per line"):
        read_image_ids(epath.Path(tmp_path) / "ids.txt")


def test_landmarks_of_images():
    table = landmark_table([5, 3, 3, 9], [40, 10, 30, 20])
    assert landmarks_of(np.array([20, 40, 10], np.uint64), table, "train.csv").tolist() == [9, 5, 3]
    with pytest.raises(EmbeddingsError, match=r"2 of the 3 images are not in train\.csv: 0+32 .row 0., 0+1 .row 2"):
        landmarks_of(np.array([50, 40, 1], np.uint64), table, "train.csv")
    with pytest.raises(EmbeddingsError, match=r"4 of the 4 .*\(row 2\), \.\.\."):
        landmarks_of(np.arange(4, dtype=np.uint64), table, "train.csv")
