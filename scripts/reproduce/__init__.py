"""A paper's grid: planned, run, and set beside the published values."""
