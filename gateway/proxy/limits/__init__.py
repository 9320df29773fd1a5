"""Which requests and feedback events are turned away, and which are answered but not counted."""
