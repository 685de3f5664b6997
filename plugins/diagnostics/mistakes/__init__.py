"""Diagnostics of mistakes: one module each; names with an underscore are shared by them."""
