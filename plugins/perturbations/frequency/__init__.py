"""Perturbations of the Fourier spectrum."""
