"""The settings in the operator's file as values, one class for each of its tables, which every process uses."""
