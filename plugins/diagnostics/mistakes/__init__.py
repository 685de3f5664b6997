"""Mistakes: which test items two networks get wrong, and whether they share more than by chance."""
