"""The process whose memory is looked at: runs `lowlight` with its arguments, then tells its own peak.

A parent cannot know: the system counts the parent's memory as the child's until the child loads its own program.
"""

import runpy
import sys
from pathlib import Path


def own_peak_bytes() -> int:
    """Return the most memory that this process has had resident, in bytes; 0 where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Run the command line, then write the peak to standard output as one number, whatever the exit code."""
    try:
        runpy.run_module("lowlight_cli", run_name="__main__")
    finally:
        sys.stdout.write(f"{own_peak_bytes()}\n")


if __name__ == "__main__":
    main()
