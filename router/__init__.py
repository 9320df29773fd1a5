"""Config and request → what to do.

Rule: pure, but for one reference in ``router.py`` that is swapped. Imports policies, never gateway. The modules that a
worker needs (``snapshot``, ``match``, ``unit``, ``extract``, ``merge``, ``router``, ``records``) import neither
pydantic nor numpy. ``config`` and ``compile`` belong to the control plane: from the text of the operator's file to a
snapshot. ``config.config.load`` is the one function that reads files.
"""
