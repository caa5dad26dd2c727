"""Enhance clips: reading, computing and writing overlap; memory does not grow with length; light stays calm.

    for told in enhance_clips(jobs, ready(enhancer), ClipSettings()):
        ...                      # ClipProgress now and then, one ClipResult for each job

results.py    what is told of clips; what a caller may choose stands in `video.settings`
frames.py     frames through the network and the anti-flicker filter
together.py   a clip and its result, frame beside frame
covers.py     cover pictures without the metadata that is not wanted
contact.py    frames before and after, as a sheet
work.py       one clip's way through reader, network, filter and writer
run.py        clips one after the other; a clip that fails is a result, not the end
"""

from lowlight_cli.clip.contact import sheet_job
from lowlight_cli.clip.results import ClipProgress, ClipResult
from lowlight_cli.clip.run import enhance_clips, fitted, ready
from lowlight_cli.video import ClipSettings

__all__ = ["ClipProgress", "ClipResult", "ClipSettings", "enhance_clips", "fitted", "ready", "sheet_job"]
