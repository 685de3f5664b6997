"""Diagnostics of weights: one module each; names with an underscore are shared by them."""
