"""The command `verify`: whether a prepared dataset is whole, and what a build makes of its files."""
