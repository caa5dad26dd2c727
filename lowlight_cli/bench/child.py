"""The process whose memory is looked at: runs `lowlight` with its arguments, then tells its own peak.

A parent cannot know: the system counts the parent's memory as the child's until the child loads its own program.
"""

import runpy
import sys

from lowlight_cli.machine import peak_bytes


def main() -> None:
    """Run the command line, then write the peak to standard output as one number, whatever the exit code."""
    try:
        runpy.run_module("lowlight_cli", run_name="__main__")
    finally:
        sys.stdout.write(f"{peak_bytes()}\n")


if __name__ == "__main__":
    main()
