"""What copies of the competition look like: names of files and of members of archives.

An image is at ``train/a/b/c/<id>.jpg`` in every kind of copy, where a, b, c are the first three characters of its id.
The images without labels are in folders ``index/`` and ``test/`` beside it, in the same way. A name that does not say
exactly that is no image, whatever it is: so nothing in an archive leads outside it.
"""

from __future__ import annotations

import re

from landmark_triplets_tfds.landmarks import format_image_id

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
