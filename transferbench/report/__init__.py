"""One HTML file that shows what a run measured."""
