"""`--init NAME|FILE`: weights that a fit or a training starts from."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lowlight_cli.cli.groups import require_weights
from lowlight_cli.console import Show
from lowlight_cli.errors import WeightsError
from lowlight_cli.manifest import read_manifest
from lowlight_cli.paths import is_file

if TYPE_CHECKING:
    from lowlight_cli.enhancer import Model


def require_initial(init: str) -> None:
    """Refuse what is neither a name of the manifest nor a file of weights by its beginning; raises WeightsError."""
    if init in read_manifest():
        return
    if not is_file(Path(init)):
        raise WeightsError(f"--init {init}: there are no weights of that name, and no such file")
    require_weights(Path(init))


def read_initial(init: str, backend: Literal["darkir", "zeroig"], show: Show, *, offline: bool) -> "Model":
    """Find and read the weights, downloaded first where they have to be; raises WeightsError, also for another's."""
    from lowlight_cli.backends import require_backend
    from lowlight_cli.enhancer import find_model

    file = None if init in read_manifest() else Path(init)
    initial = find_model(init, weights=file, offline=offline, on_download=show.steps_of("bytes"))
    assert initial.weights is not None  # which only a model without a place in the manifest has
    try:
        require_backend(initial.weights, backend)
    except WeightsError as error:
        raise WeightsError(f"--init {init}: {error}") from error
    return initial
