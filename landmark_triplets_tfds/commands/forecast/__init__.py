"""The command `forecast`: what a build will make and take, and what fits a budget."""
