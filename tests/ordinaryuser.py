"""Being somebody whom permissions hold back, for as long as a `with` block lasts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root may write everywhere: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
