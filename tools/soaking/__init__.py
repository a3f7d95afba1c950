"""What ``tools/soak.py`` runs, does to it, and looks at."""
