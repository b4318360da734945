"""Prepared images become batches: reading, fresh triplets, metrics, pictures."""
