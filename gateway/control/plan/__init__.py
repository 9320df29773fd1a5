"""From evidence to what is in force: plans, the published snapshot, and edits of the file."""
