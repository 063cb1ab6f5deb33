"""Predictions of a deployed or trained network on images, videos and folders, drawn and as files."""
