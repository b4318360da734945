"""What several rooms need and none owns: reading files, progress bars, checks of values."""
