"""Orders, from one event to all that follows."""
