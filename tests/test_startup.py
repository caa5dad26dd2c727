"""What is settled before torch is loaded, each in a process of its own."""

import os
import subprocess
import sys

import pytest

from lowlight_cli import startup

BEGIN = (
    "import gc, sys\n"
    "from lowlight_cli.startup import load_torch_lean\n"
    "finders = len(sys.meta_path)\n"
    "load_torch_lean()\n"
)
LEFT_OUT = ("torch._meta_registrations", "torch._decomp", "torch._prims")


def run(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("said", "told"),
    [({}, {"GOMP_SPINCOUNT": "2000"}), ({"GOMP_SPINCOUNT": "5"}, {}), ({"OMP_WAIT_POLICY": "active"}, {})],
)
def test_what_the_environment_says_of_spinning_stays(monkeypatch, said, told):
    monkeypatch.setattr(os, "environ", dict(said))
    startup.spin_briefly()
    assert os.environ == said | told


def test_a_picture_is_enhanced_without_what_compilers_read(tmp_path):
    from PIL import Image

    Image.new("RGB", (48, 32), (20, 18, 16)).save(tmp_path / "dark.png")
    run(
        "import gc, sys\n"
        f"sys.argv = ['lowlight', 'enhance', {str(tmp_path / 'dark.png')!r}]\n"
        "from lowlight_cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end\n"
        f"assert 'torch' in sys.modules and not sys.modules.keys() & set({LEFT_OUT!r})\n"
        "assert gc.isenabled() and gc.get_freeze_count()\n"
    )
    assert (tmp_path / "dark_lowlight.png").exists()


@pytest.mark.parametrize(
    "wanted", ["torch._dynamo", "torch._prims", "torch._meta_registrations", "torch.utils.flop_counter"]
)
def test_whatever_else_of_torch_is_loaded_finds_it_whole(wanted):
    run(
        f"{BEGIN}import torch\n"
        f"assert not sys.modules.keys() & set({LEFT_OUT!r})\n"
        f"import {wanted}\n"
        f"assert set({LEFT_OUT!r}) <= sys.modules.keys() and len(sys.meta_path) == finders\n"
        f"assert {wanted}.__spec__.loader is {wanted}.__loader__ and torch._meta_registrations.meta_conv\n"
        "doubled = torch.compile(lambda x: torch.nn.functional.pad(x * 2, (1, 1)).sum(0), backend='aot_eager')\n"
        "assert doubled(torch.ones(3, 2)).tolist() == [0, 6, 6, 0]\n"
    )


def test_a_collector_that_was_off_stays_off():
    run(f"import gc; gc.disable()\n{BEGIN}import torch\nassert not gc.isenabled()")


def test_once_torch_is_there_nothing_is_changed():
    run("import sys, torch\nbefore = list(sys.meta_path)\n" + BEGIN + "assert sys.meta_path == before")


def test_a_torch_that_cannot_be_loaded_is_told_as_ever(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libgomp is missing')")
    run(
        f"{BEGIN}sys.path.insert(0, {str(tmp_path)!r})\n"
        "try: import torch\n"
        "except ImportError as error: assert 'libgomp' in str(error)\n"
        "assert gc.isenabled() and len(sys.meta_path) == finders\n"
        f"assert not sys.modules.keys() & {{{LEFT_OUT[0]!r}, 'torch'}}\n"
    )
