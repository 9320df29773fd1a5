"""What is stored for each call, event, body and unit."""
