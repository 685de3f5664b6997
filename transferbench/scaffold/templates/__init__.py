"""The Jinja templates of ``plugin new``, as package data."""
