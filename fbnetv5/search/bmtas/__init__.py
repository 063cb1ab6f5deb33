"""BMTAS: a search for one network of all tasks that decides where the tasks branch (arXiv 2008.10292)."""
