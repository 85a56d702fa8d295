"""Private: which images of a source are new, as pure decisions."""
