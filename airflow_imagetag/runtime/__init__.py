"""Private: threads, the thread of the event loop, retries and digests; nothing about images."""
