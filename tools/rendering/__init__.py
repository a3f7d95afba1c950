"""Parts of `tools/render_places.py`: light, walls, and the engine behind a scene."""
