"""The kinds of copy that images are read from, and what they share; `sources` finds out which one a folder holds."""
