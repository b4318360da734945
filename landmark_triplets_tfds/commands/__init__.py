"""The command `landmark-triplets`: looking before a build and after it."""
