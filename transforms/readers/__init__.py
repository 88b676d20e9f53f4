"""Readers of images and masks, and the lists of files they read."""
