"""What is wrong with a folder in which no copy of the competition was found, in words.

People unpack one level too deep, rename, fetch half, or point at the folder above. Each of these is looked for, nearest
miss first, so that the message names what is there and what to do with it.
"""

from __future__ import annotations

import re

from etils import epath

from landmark_triplets_tfds.layout import (
    COMPETITION,
    IMAGES_NAME,
    TABLE_NAME,
    TABLE_NAMES,
    TAR_PATTERN,
    ZIP_NAME,
)

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
