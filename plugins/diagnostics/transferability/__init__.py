"""Diagnostics of transferability: one module each; names with an underscore are shared by them."""
