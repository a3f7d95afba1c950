"""Microcontroller builds: weight layouts, the folder that a firmware engineer drops in."""
