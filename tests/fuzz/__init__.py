"""Hostile bytes for every reader of files: make fuzz. What was found is kept and replayed by make test."""
