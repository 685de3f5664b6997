"""Datasets in memory: decoding, splits, augmentation, perturbation and batches."""

from __future__ import annotations
