"""Measurements to be run by hand; see README.md beside this file."""
