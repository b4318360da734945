"""`python -m landmark_triplets_tfds` is the command `landmark-triplets`."""

import sys

from landmark_triplets_tfds.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
