"""Profiles of artifacts: files and report made of what ``runtime.profiling`` measured."""
