"""What copies of the competition look like, and what is said of a folder that only nearly looks like one.

An image is at ``train/a/b/c/<id>.jpg`` in every kind of copy, where a, b, c are the first three characters of its id.
The images without labels are in folders ``index/`` and ``test/`` beside it, in the same way. A name that does not say
exactly that is no image, whatever it is: so nothing in an archive leads outside it.

People unpack one level too deep, rename, fetch half, or point at the folder above. The table of near misses at the end
has a row for each of these, so that the message names what is there and what to do with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import itertools
import re
from typing import NamedTuple

from etils import epath

from landmark_triplets_tfds.common.checks import list_some
from landmark_triplets_tfds.competition.tables import format_image_id

COMPETITION = "landmark-retrieval-2020"
ZIP_NAME = f"{COMPETITION}.zip"
TABLE_NAME = "train.csv"
CLEAN_TABLE_NAME = "train_clean.csv"
TABLE_NAMES = (CLEAN_TABLE_NAME, TABLE_NAME)  # the first one that is there counts
IMAGES_NAME = "train"
UNLABELED_NAMES = ("index", "test")  # folders, and the splits that they become
FOLDER_NAMES = (IMAGES_NAME, *UNLABELED_NAMES)

_IMAGE = r"(?P<a>[0-9a-f])/(?P<b>[0-9a-f])/(?P<c>[0-9a-f])/(?P<id>(?P=a)(?P=b)(?P=c)[0-9a-f]{13})\.jpg"
_IN_FOLDER = rf"(?P<folder>{'|'.join(FOLDER_NAMES)})/"
# Some programs let names in archives begin with ``./``, as that of macOS and Windows does, or with ``/``.
_LEAD = r"(?:\.?/)*"
# As Kaggle's zip has them, or all within one folder, the root, as after unpacking and packing again.
_ROOT = r"(?P<root>(?!\.{1,2}/)[^/]+/|)"
_ZIP_IMAGE_PATTERN = re.compile(_LEAD + _ROOT + _IN_FOLDER + _IMAGE)
_ZIP_TABLE_PATTERN = re.compile(_LEAD + _ROOT + r"train\.csv")
# As published, or as packed again.
_TAR_IMAGE_PATTERN = re.compile(rf"{_LEAD}(?:{_IN_FOLDER})?{_IMAGE}")
_IMAGE_FILE_PATTERN = re.compile(r"(?P<id>[0-9a-f]{16})\.jpg")
TAR_PATTERN = re.compile(r"images_[0-9]+\.tar")
ZIP_PATTERN = re.compile(r"[^.].*(?<!\.csv)\.zip")  # train.csv.zip is what Kaggle's tools make of one file

LAYOUT_INSTRUCTIONS = f"""\
Expected is one of these copies, in <manual_dir> or in <manual_dir>/{COMPETITION}. No archive has to be extracted.

1. The zip of the Kaggle competition {COMPETITION} (105 GB):
     <manual_dir>/{ZIP_NAME}
   To get it, accept the rules on the competition's page, then:
     kaggle competitions download -c {COMPETITION}

2. Its files, extracted. The sibling competitions and the extracted public Google Landmarks Dataset v2 look the same:
     <manual_dir>/{TABLE_NAME}               columns id,landmark_id
     <manual_dir>/{IMAGES_NAME}/a/b/c/<id>.jpg     where a, b, c are the first three characters of the id
   In a Kaggle notebook, add the competition as input: they are at /kaggle/input/{COMPETITION}.

3. The tars of the public Google Landmarks Dataset v2 (500 of about 1 GB) with one of its tables:
     <manual_dir>/{CLEAN_TABLE_NAME}         columns landmark_id,images; the competition's 1,580,470 images
     <manual_dir>/{TABLE_NAME}               columns id,url,landmark_id; all 4,132,914 images
     <manual_dir>/{IMAGES_NAME}/images_000.tar, images_001.tar, ...
   To get them, in <manual_dir>:
     curl --fail -O https://s3.amazonaws.com/google-landmark/metadata/{CLEAN_TABLE_NAME}
     curl --fail --create-dirs -o '{IMAGES_NAME}/images_#1.tar' \\
       'https://s3.amazonaws.com/google-landmark/train/images_[000-499].tar'

Then name the folder:
  tfds build landmark_triplets/128px --imports landmark_triplets_tfds --manual_dir <manual_dir>
"""


def image_path(image_id: int) -> str:
    """Returns ``a/b/c/<id>.jpg``."""
    name = format_image_id(image_id)
    return f"{name[0]}/{name[1]}/{name[2]}/{name}.jpg"


def mark_stamp(stamp: tuple[int, int], folder: str) -> tuple[int, int]:
    """Returns the stamp of a file so that it equals no stamp of a file in another folder.

    The bank of thumbnails knows images by id and stamp, and the same id may be another image in another folder. Sizes
    and times of both may be the same, so a number of the folder goes into two bits that times will not use until 2043.
    """
    size, changed = stamp
    return size, changed ^ (FOLDER_NAMES.index(folder) << 61)


def parse_file_name(name: str) -> int | None:
    """Returns the id of the image that a file of this name, without its folders, is; None if it is something else."""
    match = _IMAGE_FILE_PATTERN.fullmatch(name)
    return int(match["id"], 16) if match else None


def parse_zip_name(name: str) -> tuple[str, str, int] | None:
    """Returns root, folder and id of the image that a member of a zip is; None if it is something else."""
    match = _ZIP_IMAGE_PATTERN.fullmatch(name)
    return (match["root"], match["folder"], int(match["id"], 16)) if match else None


def parse_zip_table_name(name: str) -> str | None:
    """Returns the root of the table of images that a member of a zip is; None if it is something else."""
    match = _ZIP_TABLE_PATTERN.fullmatch(name)
    return match["root"] if match else None


def parse_tar_name(name: str, folder: str = IMAGES_NAME) -> int | None:
    """Returns the id of the image that a member of a tar in a folder is; None if it is something else."""
    match = _TAR_IMAGE_PATTERN.fullmatch(name)
    return int(match["id"], 16) if match and match["folder"] in (None, folder) else None


def find_table(root: epath.Path) -> str | None:
    """Returns the name of the table of images in a folder."""
    return next((name for name in TABLE_NAMES if (root / name).exists()), None)


def find_names(folder: epath.Path, pattern: re.Pattern[str]) -> list[str]:
    """Returns the names in a folder, if there is one, that match as a whole, in their order."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if pattern.fullmatch(name)]


def holds_image_folders(images: epath.Path) -> bool:
    """Returns whether a folder holds folders ``0`` to ``f``, as an extracted copy's ``train/`` does."""
    return bool(find_names(images, _IMAGE_FOLDER))


class _NearMiss(NamedTuple):
    """What may be found in a folder that is no copy.

    Attributes:
      place: where it is looked for in the folder: '' for the folder itself.
      pattern: of names there, that must match as a whole; None: it is enough that the place is a folder.
      table: whether the folder must hold a table of images; None: it does not matter.
      text: what is said of it, with fields: manual_dir; root, the folder; place, the path of the place; table, the name
        of the table; names, those that match; name, the first of them; stem, that without what follows a dot.
    """

    place: str
    pattern: re.Pattern[str] | None
    table: bool | None
    text: str


_ANY = re.compile(r".*")
_TAR = re.compile(r".*\.tar")
_COMPRESSED_TAR = re.compile(r".*\.(tar\.(gz|bz2|xz|zst|lz4|Z)|tgz|tbz2?|txz)")
_PACKED = r"7z|rar|gz|bz2|xz|zst"
_OTHER_ARCHIVE = re.compile(rf"{_COMPRESSED_TAR.pattern}|.*\.({_PACKED})")
_ZIPPED_TABLE = re.compile(r"train(_clean)?\.csv\.zip")
_PACKED_TABLE = re.compile(rf"train(_clean)?\.csv\.({_PACKED})")
_UNFINISHED = re.compile(r".*\.(zip|tar|csv)\.(part|partial|crdownload|download|aria2|tmp|filepart)")
_ZIP_PART = re.compile(r".*\.(zip\.\d+|z\d\d)")
_FLAT_IMAGE = re.compile(r"[0-9a-f]{16}\.(jpe?g|JPE?G)")
_IMAGE_FOLDER = re.compile(r"[0-9a-f]")
_UNLABELED = re.compile("|".join(UNLABELED_NAMES))

_UNFINISHED_TEXT = "{place} holds {name}, an unfinished download. Let it end, or begin it anew."
_ZIPPED_TABLE_TEXT = """\
{root} holds {name}: the table is still packed. To unpack it: python -m zipfile -e {root}/{name} {root}"""
_COMPRESSED_TEXT = """\
{place} holds {name}. Only plain tars, images_000.tar and so on, are read. Decompress them: gunzip {place}/*.gz"""
_FLAT_TEXT = """\
{place} holds images directly, such as {name}. Expected there is {stem[0]}/{stem[1]}/{stem[2]}/{stem}.jpg, in folders \
named after the id's first three characters. To move them:
  cd {place} && for f in *.jpg; do d=${{f:0:1}}/${{f:1:1}}/${{f:2:1}}; mkdir -p $d; mv $f $d/; done"""
_FOLDERS_TEXT = """\
{root} holds folders of images, as train/ does, but no train.csv. Name it train, put train.csv beside it, and use the \
folder around both as manual_dir."""
_OTHER_PARTS_TEXT = """\
{root} holds {names}, but neither train/ nor train.csv: of the competition's parts, train/ is the one with landmarks."""
_TARS_TEXT = """\
{root} holds {name}. Tars are looked for in {root}/train, as images_000.tar and so on: move them there."""
_TARS_ALONE_TEXT = "{place} holds tars ({names}), but {root} holds neither train_clean.csv nor train.csv."
_TAR_NAME_TEXT = "{place} holds {name}. Tars are read by the names they are published by: images_000.tar and so on."
_TRAIN_IN_TRAIN_TEXT = "{root}/train holds another train/ with the images: move its content one level up."
_ZIPS_TEXT = f"{{root}} holds several zips ({{names}}), none of them called {ZIP_NAME}: rename the right one."
_OTHER_FOLDER_TEXT = """\
{root} holds tars. They are looked for in {manual_dir}/train, with train_clean.csv or train.csv beside it: rename the \
folder to train."""

# Looked for in manual_dir and in the competition's folder within it, nearest miss first.
_NEAR_MISSES = (
    _NearMiss("", _ZIPPED_TABLE, False, _ZIPPED_TABLE_TEXT),
    _NearMiss("", _PACKED_TABLE, False, "{root} holds {name}: the table is still packed. Unpack it there."),
    _NearMiss("train", _COMPRESSED_TAR, None, _COMPRESSED_TEXT),
    _NearMiss("train", TAR_PATTERN, False, _TARS_ALONE_TEXT),
    _NearMiss("train", _TAR, None, _TAR_NAME_TEXT),
    _NearMiss("train", _UNFINISHED, None, _UNFINISHED_TEXT),
    _NearMiss("train", _FLAT_IMAGE, None, _FLAT_TEXT),
    _NearMiss("train/train", _IMAGE_FOLDER, None, _TRAIN_IN_TRAIN_TEXT),
    _NearMiss("train", _IMAGE_FOLDER, False, "{root} holds train/ with images, but no train.csv."),
    _NearMiss("train", None, False, "{root} holds train/ but no train.csv, and no folders 0 to f are in train/."),
    _NearMiss("train", _ANY, True, "{place} holds neither folders 0 to f with images nor tars. Found there: {names}."),
    _NearMiss("train", None, True, "{place} is an empty folder: the images are missing."),
    _NearMiss("", _TAR, None, _TARS_TEXT),
    _NearMiss("", ZIP_PATTERN, None, _ZIPS_TEXT),  # several, since a single one is a copy
    _NearMiss("", _UNFINISHED, None, _UNFINISHED_TEXT),
    _NearMiss("", _ZIP_PART, None, "{root} holds {name}, a part of a zip that was split. Join the parts."),
    _NearMiss("", _OTHER_ARCHIVE, None, "{root} holds {name}, a kind of archive that is not read. Extract it there."),
    _NearMiss("", _UNLABELED, True, "{root} holds {table} but no folder train/ with its images, only {names}."),
    _NearMiss("", None, True, "{root} holds {table} but no folder train/ with the competition's images."),
    _NearMiss("", _UNLABELED, False, _OTHER_PARTS_TEXT),
    _NearMiss("", _IMAGE_FOLDER, False, _FOLDERS_TEXT),
)
# Looked for in the folders within manual_dir.
_NEAR_MISSES_BELOW = (
    _NearMiss("train", None, True, "{manual_dir} holds no train.csv, but {root} does: use that as manual_dir."),
    _NearMiss("", ZIP_PATTERN, None, "{manual_dir} holds no zip, but {root} holds {name}: use that as manual_dir."),
    _NearMiss("", TAR_PATTERN, None, _OTHER_FOLDER_TEXT),
)
_MAX_FOLDERS_LOOKED_INTO = 100
_NUM_NAMES_SHOWN = 5


def describe_wrong_layout(manual_dir: epath.Path) -> str:
    """Says what is wrong with a folder in which no copy was found, and what to do."""
    if not manual_dir.exists():
        return f"The folder {manual_dir} does not exist."
    if not manual_dir.is_dir():
        return f"{manual_dir} is a file, not a folder. Name the folder that holds it, {manual_dir.parent}."
    names = find_names(manual_dir, _ANY)
    if not names:
        return f"{manual_dir} is an empty folder."
    roots, parent = [manual_dir, manual_dir / COMPETITION], manual_dir.parent
    if not any(find_table(root) for root in roots) and (table_name := find_table(parent)):
        return f"{manual_dir} holds no {TABLE_NAME}, but {parent} holds {table_name}: use that as manual_dir."
    below = [manual_dir / name for name in names[:_MAX_FOLDERS_LOOKED_INTO]]
    found = itertools.chain(_find(manual_dir, roots, _NEAR_MISSES), _find(manual_dir, below, _NEAR_MISSES_BELOW))
    nothing = f"{manual_dir} does not hold the competition's files. Found there: {list_some(names, _NUM_NAMES_SHOWN)}."
    return next(found, nothing)


def _find(manual_dir: epath.Path, roots: list[epath.Path], near_misses: Iterable[_NearMiss]) -> Iterator[str]:
    """Yields what is to be said of each near miss that there is in one of the folders."""
    for near_miss, root in itertools.product(near_misses, roots):
        place = root / near_miss.place
        if not place.is_dir():
            continue
        table = find_table(root)
        names = find_names(place, near_miss.pattern) if near_miss.pattern else [""]
        if names and near_miss.table in (None, table is not None):
            fields = {"manual_dir": manual_dir, "root": root, "place": place, "table": table}
            fields |= {"names": list_some(names, _NUM_NAMES_SHOWN), "name": names[0], "stem": names[0].split(".")[0]}
            yield near_miss.text.format(**fields)
