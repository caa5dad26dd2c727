"""What weights files begin with: told without torch, so that a picture in their place is refused at once."""

from typing import Literal

from lowlight_cli.errors import WeightsError

KIND_BYTES = 32
"""How much of a file's beginning `weights_kind` wants to see."""


def weights_kind(head: bytes) -> Literal["safetensors", "archive"]:
    """Return which of the containers that we read begins so; raises WeightsError, a sentence without its subject."""
    if head.startswith(b"PK\x03\x04"):
        return "archive"
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError("is a Git LFS pointer, not the file it points to")
    if head.startswith(b"\x80"):
        raise WeightsError("is a pickle from before PyTorch 1.6, which is not read: save it again as safetensors")
    raise WeightsError("is neither a safetensors file nor a PyTorch file")
