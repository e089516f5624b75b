"""What a run does: its plan, and one file after the other from opening to report."""
