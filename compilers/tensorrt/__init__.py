"""Lowering for Jetson GPUs: cubins, plugin sources and the recipe that the board finishes."""
