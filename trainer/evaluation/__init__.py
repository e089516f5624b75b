"""Evaluation: known pairs, scores beside doing nothing, reports."""
