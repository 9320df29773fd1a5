"""HTTP out: backends, their replicas, connections to them, and which of them is healthy."""
