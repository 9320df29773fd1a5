"""One request from its decision to its rows and its answer."""
