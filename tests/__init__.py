"""A package, so that worker processes find these modules before the `tests` that other packages install."""
