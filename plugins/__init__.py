"""The built-in plugins, loaded through the entry points that third-party plugins use."""
