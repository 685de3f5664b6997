"""Diagnostics of training: one module each; names with an underscore are shared by them."""
