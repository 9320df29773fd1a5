"""Config and request → what to do.

Rule: pure, but for one reference in ``router.py`` that is swapped. Imports policies, never gateway. What a worker needs
(``snapshot``, ``match``, ``unit``, ``extract``, ``merge``, ``router``, ``records``, ``placeholders``, ``spellings``)
imports neither pydantic nor numpy. The rest belongs to the control plane, from the text of the operator's file to a
snapshot: ``tables`` and ``settings`` say what the file may hold, ``draft`` reads it, ``checks`` looks between the
settings, ``positions`` and ``diagnostics`` say where the ``findings`` are, ``config`` is the result, ``compile`` makes
the snapshot and ``schema`` tells editors. ``config.load`` is the one function that reads files.
"""
