"""Embeddings, the files they come from, and neighbours among them; `hard_triplets` chooses from them."""
