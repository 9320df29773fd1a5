"""HTTP in: the listening socket, one connection per client, requests and their answers."""
