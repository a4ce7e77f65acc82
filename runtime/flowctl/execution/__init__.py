"""The durable walk over a step graph: no clock, socket, storage or engine of its own."""
