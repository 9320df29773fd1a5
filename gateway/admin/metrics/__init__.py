"""The Prometheus series and what feeds them."""
