"""Private: from finished images to batches: filter, label map, batch writer."""
