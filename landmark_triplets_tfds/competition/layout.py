"""What copies of the competition look like: names of files and of members of archives.

An image is at ``train/a/b/c/<id>.jpg`` in every kind of copy, where a, b, c are the first three characters of its id.
The images without labels are in folders ``index/`` and ``test/`` beside it, in the same way. A name that does not say
exactly that is no image, whatever it is: so nothing in an archive leads outside it.

What is wrong with a folder in which no copy of the competition was found, in words.

People unpack one level too deep, rename, fetch half, or point at the folder above. Each of these is looked for, nearest
miss first, so that the message names what is there and what to do with it.
"""

from __future__ import annotations

import re

from etils import epath

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
# As Kaggle's zip has them, or all within one folder, as after unpacking and packing again.
_OUTER_FOLDER = r"(?:(?!\.{1,2}/)[^/]+/)?"
_ZIP_IMAGE_PATTERN = re.compile(_OUTER_FOLDER + _IN_FOLDER + _IMAGE)
_ZIP_TABLE_PATTERN = re.compile(_OUTER_FOLDER + r"train\.csv")
# As published, or as packed again.
_TAR_IMAGE_PATTERN = re.compile(rf"(?:\./)?(?:{_IN_FOLDER})?{_IMAGE}")
_IMAGE_FILE_PATTERN = re.compile(r"(?P<id>[0-9a-f]{16})\.jpg")
TAR_PATTERN = re.compile(r"images_[0-9]+\.tar")

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


def parse_zip_name(name: str) -> tuple[str, int] | None:
    """Returns the folder and the id of the image that a member of a zip is; None if it is something else."""
    match = _ZIP_IMAGE_PATTERN.fullmatch(name)
    return (match["folder"], int(match["id"], 16)) if match else None


def is_zip_table(name: str) -> bool:
    """Returns whether a member of a zip is the table of images."""
    return _ZIP_TABLE_PATTERN.fullmatch(name) is not None


def parse_tar_name(name: str, folder: str = IMAGES_NAME) -> int | None:
    """Returns the id of the image that a member of a tar in a folder is; None if it is something else."""
    match = _TAR_IMAGE_PATTERN.fullmatch(name)
    return int(match["id"], 16) if match and match["folder"] in (None, folder) else None


_NUM_NAMES_SHOWN = 5
_MAX_FOLDERS_LOOKED_INTO = 100

_TAR = re.compile(r".*\.tar")
_ZIP = re.compile(r".*\.zip")
_COMPRESSED_TAR = re.compile(r".*\.(tar\.(gz|bz2|xz|zst|lz4|Z)|tgz|tbz2?|txz)")
_UNFINISHED = re.compile(r".*\.(zip|tar|csv)\.(part|partial|crdownload|download|aria2|tmp|filepart)")
_ZIP_PART = re.compile(r".*\.(zip\.\d+|z\d\d)")
_OTHER_ARCHIVE = re.compile(r".*\.(7z|rar|gz|bz2|xz|zst)")
_FLAT_IMAGE = re.compile(r"[0-9a-f]{16}\.(jpe?g|JPE?G)")
_OTHER_PARTS = ("test", "index")  # of the competition


def find_table(root: epath.Path) -> str | None:
    """Returns the name of the table of images in a folder."""
    return next((name for name in TABLE_NAMES if (root / name).exists()), None)


def find_names(folder: epath.Path, pattern: re.Pattern[str]) -> list[str]:
    """Returns the names in a folder, if there is one, that match as a whole, in their order."""
    return [name for name in _list(folder) if pattern.fullmatch(name)]


def holds_image_folders(images: epath.Path) -> bool:
    """Returns whether a folder holds folders ``0`` to ``f``, as an extracted copy's ``train/`` does."""
    return bool(find_names(images, re.compile(r"[0-9a-f]")))


def describe_wrong_layout(manual_dir: epath.Path) -> str:
    """Says what is wrong with a folder in which no copy was found, and what to do."""
    if not manual_dir.exists():
        return f"The folder {manual_dir} does not exist."
    if not manual_dir.is_dir():
        return f"{manual_dir} is a file, not a folder. Name the folder that holds it: --manual_dir {manual_dir.parent}"
    if not _list(manual_dir):
        return f"{manual_dir} is an empty folder."
    roots = [manual_dir, manual_dir / COMPETITION]
    parent = manual_dir.parent
    if not any(find_table(root) for root in roots) and (table_name := find_table(parent)):
        return f"{manual_dir} holds no {TABLE_NAME}, but {parent} holds {table_name}: use that as manual_dir."
    for look in (_describe_images, _describe_archives, _describe_table):
        for root in roots:
            if text := look(root):
                return text
    return _describe_other_place(manual_dir) or _describe_contents(manual_dir)


def _describe_images(root: epath.Path) -> str | None:
    """Looks into a folder ``train/`` that is not as expected."""
    images = root / IMAGES_NAME
    if not images.is_dir():
        return None
    names, table_name = _list(images), find_table(root)
    if compressed := find_names(images, _COMPRESSED_TAR):
        return (
            f"{images} holds {compressed[0]}. Only plain tars, images_000.tar and so on, are read. Decompress them:"
            f" gunzip {images}/*.gz"
        )
    if tars := find_names(images, TAR_PATTERN):
        return None if table_name else f"{images} holds {len(tars):,} tars, but {root} holds neither {_tables()}."
    if tars := find_names(images, _TAR):
        return f"{images} holds {tars[0]}. Tars are read by the names they are published by: images_000.tar and so on."
    if unfinished := find_names(images, _UNFINISHED):
        return f"{images} holds {unfinished[0]}, an unfinished download. Let it end, or begin it anew."
    if flat := find_names(images, _FLAT_IMAGE):
        name = flat[0]
        return (
            f"{images} holds images directly, such as {name}. Expected there is"
            f" {name[0]}/{name[1]}/{name[2]}/{name[:16]}.jpg, in folders named after the id's first three characters."
            f" To move them:\n  cd {images} && for f in *.jpg; do d=${{f:0:1}}/${{f:1:1}}/${{f:2:1}}; mkdir -p $d;"
            " mv $f $d/; done"
        )
    if holds_image_folders(images / IMAGES_NAME):
        return f"{images} holds another {IMAGES_NAME}/ with the images: move its content one level up."
    if not table_name and not holds_image_folders(images) and names:
        return f"{root} holds {IMAGES_NAME}/ but no {TABLE_NAME}, and no folders 0 to f are in {IMAGES_NAME}/."
    if not table_name:
        return f"{root} holds {IMAGES_NAME}/ but no {TABLE_NAME}."
    if not names:
        return f"{images} is an empty folder: the images are missing."
    return f"{images} holds neither folders 0 to f with images nor tars. Found there: {_shorten(names)}."


def _describe_archives(root: epath.Path) -> str | None:
    """Looks for archives that are not where, or not what, they should be."""
    if tars := find_names(root, _TAR):
        return (
            f"{root} holds {tars[0]}. Tars are looked for in {root / IMAGES_NAME}, as images_000.tar and so on:"
            f" move them there."
        )
    zips = find_names(root, _ZIP)
    if len(zips) > 1:
        return f"{root} holds several zips ({_shorten(zips)}), none of them called {ZIP_NAME}: rename the right one."
    if unfinished := find_names(root, _UNFINISHED):
        return f"{root} holds {unfinished[0]}, an unfinished download. Let it end, or begin it anew."
    if parts := find_names(root, _ZIP_PART):
        return f"{root} holds {parts[0]}, a part of a zip that was split. Join the parts to {ZIP_NAME}."
    if compressed := find_names(root, _COMPRESSED_TAR) or find_names(root, _OTHER_ARCHIVE):
        return f"{root} holds {compressed[0]}, a kind of archive that is not read. Extract it there."
    return None


def _describe_table(root: epath.Path) -> str | None:
    """Looks for a table, or for the competition's other parts, without the images."""
    if table_name := find_table(root):
        others = [name for name in _OTHER_PARTS if (root / name).is_dir()]
        besides = f" ({' and '.join(others)}/ hold its other parts)" if others else ""
        return f"{root} holds {table_name} but no folder {IMAGES_NAME}/ with the competition's images{besides}."
    if others := [f"{name}/" for name in _OTHER_PARTS if (root / name).is_dir()]:
        return (
            f"{root} holds {' and '.join(others)} but neither {IMAGES_NAME}/ nor {TABLE_NAME}: of the competition's"
            f" parts, {IMAGES_NAME}/ is the one with landmarks."
        )
    return None


def _describe_other_place(manual_dir: epath.Path) -> str | None:
    """Looks for a copy one level down, or for images without their table."""
    if holds_image_folders(manual_dir):
        return (
            f"{manual_dir} holds folders of images, as {IMAGES_NAME}/ does, but no {TABLE_NAME}. Name it {IMAGES_NAME},"
            f" put {TABLE_NAME} beside it, and use the folder around both as manual_dir."
        )
    for name in _list(manual_dir)[:_MAX_FOLDERS_LOOKED_INTO]:
        folder = manual_dir / name
        if not folder.is_dir():
            continue
        if find_table(folder) and (folder / IMAGES_NAME).is_dir():
            return f"{manual_dir} holds no {TABLE_NAME}, but {folder} does: use that as manual_dir."
        if zips := find_names(folder, _ZIP):
            return f"{manual_dir} holds no zip, but {folder} holds {zips[0]}: use that as manual_dir."
        if find_names(folder, TAR_PATTERN):
            return (
                f"{folder} holds tars. They are looked for in {manual_dir / IMAGES_NAME}, with {_tables()} beside it:"
                f" rename {name}/ to {IMAGES_NAME}/."
            )
    return None


def _describe_contents(manual_dir: epath.Path) -> str:
    return f"{manual_dir} does not hold the competition's files. Found there: {_shorten(_list(manual_dir))}."


def _list(folder: epath.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _tables() -> str:
    return " nor ".join(TABLE_NAMES)


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:_NUM_NAMES_SHOWN]) + (", ..." if len(names) > _NUM_NAMES_SHOWN else "")
