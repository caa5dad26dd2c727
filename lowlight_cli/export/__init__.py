"""Networks for other programs: one file that takes a picture and gives the bright one, without this package.

    found = find_model("darkir-small")
    exported = export_model(found, Path("darkir-small.onnx"), "onnx")
    exported.difference        # the largest between the file's results and ours, on pictures of several sizes

The graph holds everything between the picture and the result that `enhance` computes on a whole picture in fp32: also
the lift of a conditioned DarkIR, which is chosen from the picture inside the graph.

graphs.py     what is exported, as modules
lifting.py    DarkIR's lift in tensors alone, for a graph has no numbers of Python
spectrum.py   the frequency filter by matrix products, for ONNX
files.py      written, checked, moved into place
"""

from lowlight_cli.export.files import Exported, export_model, require_libraries

__all__ = ["Exported", "export_model", "require_libraries"]
