"""Make dark photos and clips bright and clean.

    import lowlight_cli as lowlight
    bright = lowlight.enhance(picture)      # PIL image, numpy array or tensor in; the same kind out

Public names load on first use, so that importing the package (and `lowlight --help`) costs no torch.
"""

__version__ = "0.1.0"
