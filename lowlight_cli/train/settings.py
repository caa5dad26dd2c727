"""What a caller of `train` may choose besides the recipe. No torch here: the command line reads the defaults."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lowlight_cli.errors import SettingsError

DEFAULT_RECIPE = "darkir-small"
RECIPES = Path(__file__).parents[1] / "recipes"
"""Where the published recipes lie, a TOML file each."""


def published_recipes() -> tuple[str, ...]:
    """The names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


@dataclass(frozen=True)
class Run:
    """Where a training writes, how often (in steps), and where it computes. `data` says on what, for the metadata.

    `workers` processes make samples; 0 leaves it to a thread, None is a process per core beside a CUDA device, else 0.
    """

    output: Path = Path("training")
    data: str = "unnamed"
    device: str = "auto"
    save_every: int = 250
    validate_every: int = 250
    report_every: int = 25
    workers: int | None = None

    def __post_init__(self) -> None:
        if min(self.save_every, self.validate_every, self.report_every) < 1:
            raise SettingsError("a training saves, validates and reports every 1 step or more")
        if self.workers is not None and self.workers < 0:
            raise SettingsError("--workers is 0 or more")

    def refuse_foreign_folder(self, recipe: str, data: Iterable[Path]) -> None:
        """Refuse an `output` whose files are no training's, or that lies within the pictures; raises SettingsError."""
        for folder in data:
            if self.output.resolve().is_relative_to(folder.resolve()):
                raise SettingsError(f"{self.output} lies among the pictures of {folder}; give --output another folder")
        if any((self.output / name).exists() for name in ("checkpoint.pt", "log.jsonl")):
            return
        for name in ("curve.png", "preview.png", "recipe.toml", f"{recipe}.safetensors"):
            if (self.output / name).exists():
                raise SettingsError(f"{self.output / name} is there and no training is; give --output another folder")
