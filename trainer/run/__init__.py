"""Run a training: the loop, its record, its progress, and runs of limited time."""
