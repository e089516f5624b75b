"""The command line: thin click commands, and the view that renders events."""
