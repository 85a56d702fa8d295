"""Where images are."""
