"""Commands that work on the configuration, the data directory or the store of this machine, served or not."""
