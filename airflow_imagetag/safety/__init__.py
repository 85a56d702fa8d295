"""Private: which hosts, URIs and texts are safe to open or to show. No I/O but path look-ups."""
