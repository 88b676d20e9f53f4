"""Inference on thousands of studies: each done once, whatever is killed and restarted in between."""
