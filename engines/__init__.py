"""What drives a run beside MONAI's and ignite's own engines: handlers, metrics, tracking."""
