"""Events out: what is recorded is told to others, beside the store.

Theory of operation. Whatever the recorder writes it also says in CloudEvents, for each sink those it asks for, and
leaves them in the store's outbox, in the same transaction. A sender per sink takes them from there in order, and
deletes them once they are delivered. So every event is delivered at least once: what was on its way when the process
died goes again, with the same id.

Rule: a sink that is slow, or gone, holds up nothing but itself. What waits for it is bounded, and what finds no room
is dropped and counted. Where several nodes share the store, the holder of the lease sends.
"""
