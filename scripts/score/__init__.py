"""Scores of cell instances that any program found."""
