"""What operators see and ask: the admin API, the console, Prometheus metrics.

Rule: reads what the controller knows and changes nothing but by asking it to reload. No error leaves as a traceback,
and nothing here is on the path of a request to a model.
"""
