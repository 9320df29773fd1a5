"""What both sides of the proxy share: message heads, errors, deadlines, and the coroutine that runs a request."""
