"""The data plane: what carries a request from the client to the models and an answer back.

Rule: nothing here imports numpy, scipy, SQLAlchemy, pydantic or prometheus-client, opens a database or waits for the
control plane. The HTTP both ways is the product's own, on httptools: ``edge`` faces clients, ``upstream`` faces
backends.
"""
