"""The bytes of an image file become the bytes of a thumbnail: in parallel, once, and kept."""
