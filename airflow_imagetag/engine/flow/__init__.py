"""Private: when a request may be sent, and how many are sent at the same time."""
