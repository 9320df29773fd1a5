"""Starting and ending processes: the supervisor, its locks and sockets, limits, and the configuration they share."""
