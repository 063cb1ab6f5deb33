"""Training one derived network alone: what it is told, where its weights start, what it sees, and the loop."""
