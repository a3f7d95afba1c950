"""Arm programs on a machine of another kind: run, counted, and priced in cycles."""
