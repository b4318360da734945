"""Prepared images become batches: reading, fresh triplets, pictures."""
