"""Metrics of segmentation and classification, their calibration and their reports."""
