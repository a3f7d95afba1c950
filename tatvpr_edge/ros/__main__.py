"""``python -m tatvpr_edge.ros``: the node, without ROS (:mod:`tatvpr_edge.ros.command`).

Everything is imported where an interrupt is one line, too.
"""

import sys


def main(argv: list[str]) -> int:
    """Exit status 0, 1 (refused), 2 (usage) or 130 (interrupted)."""
    try:
        from tatvpr_edge.ros.command import run

        return run(argv)
    except KeyboardInterrupt:  # while a call waits, or all is loaded; a node ends in order
        print("error: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
