"""Landscape: loss and metric on the line between two networks, its barriers and basins."""
