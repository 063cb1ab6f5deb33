"""The HTML page of a run of any kind: what it was asked for, how it went, what it found, and what that does not show."""
