"""Which examples a dataset is made of: triplets, drawn or from a file, and single images."""
