"""The competition's files: which copy there is, which table, which images."""
