"""The HTML page of a run of any kind: its settings, its course, its results, and what these do not show."""
