"""The command line: thin commands and the view that renders events."""
