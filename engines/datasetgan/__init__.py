"""The training of a generator and of what labels its slices, and how the published code scores a segmenter."""
