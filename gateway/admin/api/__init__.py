"""The JSON API of the admin port."""
