"""The texts that ``plugin new`` fills in; data alone."""
