"""Failures a user can cause or meet, as one tree. Only `LowlightError` is ever caught; a bug keeps its traceback.

LowlightError            exit 1   code "failed"
├── SettingsError        exit 2   "usage"      an option or path that cannot be meant
├── InputError           exit 1   "input"      a picture, clip or folder that cannot be read
├── OutputError          exit 1   "output"     a result that cannot be written
├── ResourceError        exit 1   "memory"     out of memory at the smallest tile
├── WorkerError          exit 1   "worker"     workers of a cluster, or of a training, are lost
├── NumericsError        exit 1   "numerics"   NaN or infinity that fp32 did not cure, or that a training ran into
├── WeightsError         exit 3   "weights"    weights absent, damaged or of another network
└── DeviceError          exit 4   "device"     the device asked for is not there

`Interrupted` is no failure but a request to stop; it derives from KeyboardInterrupt so that no `except Exception`
swallows it.
"""

from typing import ClassVar


class LowlightError(Exception):
    """An expected failure: its message is one clear sentence for a person, and says what to do next."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "failed"


class SettingsError(LowlightError, ValueError):
    """An option, a combination of options or a path that cannot be meant; raised before any work."""

    exit_code = 2
    code = "usage"


class InputError(LowlightError):
    """An input that cannot be read: missing, damaged, unsupported or too large."""

    code = "input"


class OutputError(LowlightError):
    """A result that cannot be written: no space, no permission, or a target that may not be replaced."""

    code = "output"


class ResourceError(LowlightError):
    """Out of memory at the smallest tile."""

    code = "memory"


class WorkerError(LowlightError):
    """Workers that are lost: those of a cluster again and again, or one that makes a training's samples."""

    code = "worker"


class NumericsError(LowlightError):
    """A network's result, or what a training made of one, holds NaN or infinity, in fp32 too; nothing is written."""

    code = "numerics"


class WeightsError(LowlightError):
    """Weights that are absent, damaged, hostile or made for another network."""

    exit_code = 3
    code = "weights"


class DeviceError(LowlightError):
    """The device asked for is not on this machine; there is never a silent fallback."""

    exit_code = 4
    code = "device"


class Interrupted(KeyboardInterrupt):
    """A signal asked us to stop; `exit_code` is 130 for SIGINT and 143 for SIGTERM."""

    def __init__(self, exit_code: int = 130) -> None:
        super().__init__()
        self.exit_code = exit_code
