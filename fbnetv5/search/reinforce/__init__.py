"""FBNetV5 (arXiv 2111.10007): a network per task in one run, by a supernet, policies and importance sampling."""
