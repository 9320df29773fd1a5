"""Commands that ask the admin port of a running gateway, and open neither its data directory nor its store."""
