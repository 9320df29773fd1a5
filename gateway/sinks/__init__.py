"""Sends what is recorded to other systems, as CloudEvents.

Theory of operation. For each sink, the recorder writes the events that the sink asks for into the store's outbox, in
the transaction that records what they are about. A sender per sink reads them from there in order, and deletes them
once they are delivered. So every event is delivered at least once: one that was being sent when the process died is
sent again, with the same id.

Rule: a sink that is slow or unreachable delays only itself. The events that wait for it are bounded; those beyond the
bound are dropped and counted. Where several nodes share the store, the holder of the lease sends.
"""
