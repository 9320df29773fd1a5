"""When a trigger fires: a pure function of its settings, of where it stands, and of what is known of its route."""
