"""The commands of `landmark-triplets`: arguments, output, and what each of them does; `cli` runs them."""
