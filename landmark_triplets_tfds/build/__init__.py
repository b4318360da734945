"""A plan and thumbnails become shards, on this machine or on a cluster."""
