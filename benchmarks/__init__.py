"""This library and its peers at the same work, side by side; see README.md beside this file."""
