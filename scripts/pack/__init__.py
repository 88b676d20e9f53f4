"""Self-contained zips of bundles: what runs where this project is not installed."""
