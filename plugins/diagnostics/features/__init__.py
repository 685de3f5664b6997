"""Features: how similar two networks' features of the same images are, module by module."""
