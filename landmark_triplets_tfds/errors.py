"""What can be wrong with the user's files, as exception types.

They live in one leaf module so that the module that finds a problem and the one that decides what it means
need not import each other.
"""


class LandmarkTableError(ValueError):
    """The table of images (``train.csv``) cannot be used; the message names file, line and value."""


class TripletsFileError(ValueError):
    """The file of triplets cannot be used; the message names file, line or row, and value."""


class SourceLayoutError(FileNotFoundError):
    """The folder given as ``manual_dir`` does not hold the competition's files."""


class ArchiveError(SourceLayoutError):
    """A zip or tar with the images cannot be used as a whole; the message names it and says how to mend it."""


class NoTripletError(ValueError):
    """The table holds no image from which a triplet could be drawn."""


class EmptySplitError(ValueError):
    """A split of single images would hold none."""


class ImageIndexError(ValueError):
    """The index of a dataset of single images is missing or wrong; the message names the file."""


class ForkedReaderError(RuntimeError):
    """A forked process reads records after the one it was forked from did."""


class MissingImagesError(FileNotFoundError):
    """So many of the images in the table have no file that this is a partial copy of the competition."""


class TooManyUnreadableError(RuntimeError):
    """More images turned out unreadable than the build option ``max_unreadable`` allows."""


class BankError(OSError):
    """The bank of thumbnails cannot be written; the message names its folder and size."""


class PreparedDataMismatchError(ValueError):
    """Data prepared earlier under this name was made from other fields, another table or another cap."""


class EmbeddingsError(ValueError):
    """Embeddings or the ids of their images cannot be used; the message names file, row and image."""


class CommandError(ValueError):
    """What a command was given does not fit; the message says how to mend it."""


class UnreadableImageError(Exception):
    """One image has no readable pixels.

    The build goes on without the image; it is counted under ``reason`` and listed with ``detail``.

    Attributes:
      reason: one of the few fixed texts below, so that counts by reason stay readable.
      detail: what exactly was found in this file, or ''.
    """

    MISSING = "missing"
    EMPTY = "empty file"
    NOT_AN_IMAGE = "not a JPEG, PNG or GIF file"
    TOO_LARGE = "too many pixels"
    FILE_TOO_LARGE = "file too large"
    DAMAGED = "damaged or truncated"
    UNSUPPORTED = "unsupported kind of image"
    NO_ACCESS = "cannot be read from disk"

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def without_traceback(self) -> "UnreadableImageError":
        """Returns an equal error to keep: a traceback keeps the image's bytes and pixels in memory."""
        return UnreadableImageError(self.reason, self.detail)

    def __reduce__(self) -> tuple[type["UnreadableImageError"], tuple[str, str]]:
        """Keeps both parts when the error crosses a process boundary."""
        return type(self), (self.reason, self.detail)


# What a command line shows without a traceback: the message says it all.
USER_ERRORS = (
    LandmarkTableError,
    TripletsFileError,
    SourceLayoutError,
    NoTripletError,
    EmptySplitError,
    ImageIndexError,
    MissingImagesError,
    TooManyUnreadableError,
    BankError,
    PreparedDataMismatchError,
    EmbeddingsError,
    CommandError,
)
