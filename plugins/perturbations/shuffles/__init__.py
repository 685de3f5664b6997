"""Permutations of pixels, blocks and channels."""
