"""What a host would stumble on in a bundle, told before it does."""
