"""Robustness: predictions on perturbed test images and on images with conflicting cues."""
