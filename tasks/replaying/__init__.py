"""Planning again what was planned before, without touching a server."""
