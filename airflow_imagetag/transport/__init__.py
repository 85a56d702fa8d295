"""Sends a request of ``service`` over HTTP and gives its answer back: requests, and aiohttp."""
