"""One adapter a peer, each run by the Python of that peer's own environment; nothing but the standard library here."""
