"""Parts of ``tools/governor_trials.py``: simulated boards, and the governor beside plain rules."""
