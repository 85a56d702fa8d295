"""Private: the URL or the bytes of one image, checked against the service's limits."""
