"""A run in MLflow: what it is, what it measured, and where that is kept."""
