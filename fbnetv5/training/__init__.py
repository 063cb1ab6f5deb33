"""Training of one derived network: configuration, initial weights, augmentation, and the loop."""
