"""Make dark photos and clips bright and clean.

    import lowlight_cli as lowlight
    bright = lowlight.enhance(picture)      # a PIL image, a numpy array or a torch tensor; the same kind comes back

Public names load on first use, so that importing the package (and `lowlight --help`) costs no torch.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lowlight_cli.arrays import enhance

__all__ = ["__version__", "enhance"]


def __getattr__(name: str) -> object:
    if name == "enhance":
        from lowlight_cli.arrays import enhance

        return enhance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
