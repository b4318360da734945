"""Neighbours among embeddings, and the files they come from and go to; `hard_triplets` chooses from them."""
