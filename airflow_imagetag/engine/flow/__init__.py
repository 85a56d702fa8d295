"""Private: when a request may be sent: quota, circuit breaker, retries and number of workers."""
