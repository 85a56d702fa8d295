"""Private: one image to its labels, through an account at a vendor."""
