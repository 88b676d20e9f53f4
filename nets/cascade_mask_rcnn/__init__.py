"""Cascade Mask R-CNN for the instances of one class, which learn from a mask, from points or from a box alone."""
