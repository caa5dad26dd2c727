"""Inputs to jobs: what is read and under which name each result goes, decided before any work begins.

`plan_jobs` looks at the disk and changes nothing. What it refuses it refuses with a SettingsError before a
model loads; what it returns never writes over an input, and never writes two results under one name. All it
knows of pictures is a table (`Media`), so clips are planned by the same code.

media.py    which suffixes and first bytes belong to which format
search.py   what the inputs mean: files, folders, globs, lists of files
naming.py   what `--output`, `--suffix` and `--format` make of a name
plan.py     jobs, collisions, existing results
shards.py   one plan in several parts, for several machines
refusal.py  how a name stands in a refusal
"""

from lowlight_cli.paths.media import PICTURES, SNIFF_BYTES, Media, sniff, sniff_file
from lowlight_cli.paths.naming import Variant, variant_path
from lowlight_cli.paths.plan import Job, Plan, plan_jobs, require_ending, require_free, require_own_names
from lowlight_cli.paths.search import (
    facts_of,
    files_below,
    is_file,
    is_folder,
    read_file_list,
    why_absent,
    why_unreadable,
)
from lowlight_cli.paths.shards import Shard, part_plan, read_shard

__all__ = [
    "PICTURES",
    "SNIFF_BYTES",
    "Job",
    "Media",
    "Plan",
    "Shard",
    "Variant",
    "facts_of",
    "files_below",
    "is_file",
    "is_folder",
    "part_plan",
    "plan_jobs",
    "read_file_list",
    "read_shard",
    "require_ending",
    "require_free",
    "require_own_names",
    "sniff",
    "sniff_file",
    "variant_path",
    "why_absent",
    "why_unreadable",
]
