"""NARS: architecture and training recipe together, by a pretrained predictor (FBNetV3, arXiv 2006.02049)."""
