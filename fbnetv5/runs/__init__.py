"""What every run has, whichever method made it: its folder, checkpoints, history and processes."""
