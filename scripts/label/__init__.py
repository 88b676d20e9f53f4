"""The bundles in MONAI Label: its environment, our application in it, and the server."""
