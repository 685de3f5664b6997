"""The pages of the site that say what the code says: written from it, never by hand."""
