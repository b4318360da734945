"""A plan and thumbnails become the shards of a dataset, on this machine or on a cluster."""
