"""Targets: from derained planes and copied packets to whole files."""
