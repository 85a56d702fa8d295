"""Private: label one image: through an account at a vendor."""
