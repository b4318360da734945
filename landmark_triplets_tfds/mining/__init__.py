"""Embeddings become neighbours, and neighbours hard triplets and scores."""
