"""One plan over several workers: GPUs of this machine, or processes of a Ray cluster. With one device, one worker.

    work = partial(PictureWork, find_model("darkir-small"), Compute(), BatchSettings())
    with open_pool(Engine(), "cuda:all", work) as pool:
        for result in pool.run(plan.jobs): ...

Whoever computes, the plan, the names and the bytes are the same, and results come in the plan's order, so that what is
told of them is the same too.

work.py       what there is to do with any job, as data that can be sent: pictures, fits, clips
pool.py       who does it, chosen by `Engine` and the device
order.py      results in the plan's order, and the end at the first failure
devices.py    several devices of this machine, each with a thread, fed from one queue
dispatch.py   jobs to members that may be lost, and the jobs of the lost to others; knows no Ray
member.py     what runs in a cluster's worker process
cluster.py    the only file that knows Ray, and imports it when asked to
"""

from lowlight_cli.spread.pool import open_pool
from lowlight_cli.spread.work import ClipsWork, FitWork, PictureWork, Told

__all__ = ["ClipsWork", "FitWork", "PictureWork", "Told", "open_pool"]
