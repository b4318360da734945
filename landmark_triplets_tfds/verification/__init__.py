"""The checks of a prepared dataset, one subject each; `verify` runs them."""
