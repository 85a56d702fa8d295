"""Private: send a request over HTTP and return the response, with requests and with aiohttp."""
