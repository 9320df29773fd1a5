"""What every process of the gateway needs: start, limits, configuration, addresses, and the end."""
