"""Runs of any method: the loop, run folders, configurations, checkpoints, histories and processes."""
