"""The search methods, one folder each, and the modules that they share."""
