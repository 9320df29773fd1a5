"""What nodes share: the lease, the list of nodes, published revisions, shipped lines and the assignment key."""
