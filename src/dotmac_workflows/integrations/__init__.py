"""What joins the library to others, each behind an extra of its own; imported by name, never by default."""
