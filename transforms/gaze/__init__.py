"""Gaze: recordings, fixations, and the attention maps made from them."""
