"""Parts of tools/bench_peers.py, tools/bench_search.py and tools/roofline.py."""
