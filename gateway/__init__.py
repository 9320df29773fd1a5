"""The shell: everything that can fail. Sockets, files, processes, the store, the clock.

Rule: imports router and policies, never the other way round. ``gateway.proxy`` and ``gateway.journal`` (the data plane)
import neither numpy, scipy, SQLAlchemy, pydantic nor prometheus-client.
"""
