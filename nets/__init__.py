"""Networks, losses and inferers."""
