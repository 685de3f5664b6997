"""Weights: distances between networks, spectra of layers and alignment of first-layer filters."""
