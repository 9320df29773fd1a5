"""What operators see and ask: the admin API, the console, Prometheus metrics.

Rule: it shows what the controller's parts answer, and changes nothing but by asking them to reload or to erase. No
error leaves as a traceback, and no request to a model passes here.
"""
