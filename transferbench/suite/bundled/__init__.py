"""The suites that come with transferbench, as package data."""
