"""Speed: how fast pictures, files and fits go on this machine, and whether that changed since another day.

What is measured, and why:

- `picture`: one picture in memory through a model, from its integers to the result's: preview, tiles, network and
  rounding, no files. Speed hangs neither on what weights hold nor on what the picture shows: pictures are dark noise,
  and networks of the published sizes are measured with random weights, without a download. The memory is the peak of
  one `lowlight enhance` of its own on such a picture: the whole process, as the system sees it. On a CUDA GPU it is
  that of the tensors there.
- `start`: `lowlight enhance` on a small photo as a new process, from nothing to the written file; beside it
  `python -c "import torch"`, which it does too, but leaner (see `startup`).
- `files`: a folder of photos, end to end. Reading and writing run beside the network, so this should hardly cost
  more than its pictures do.
- `video`: frames a second of a made-up clip, end to end as `lowlight video` does it (decoding, network, calm light
  where a network makes it, encoding), and of the network alone on the same frames. The first should be hardly less
  than the second.
- `zero-shot`: optimiser steps of a fit, of either preset.
- `calibration`: a fixed convolution (arithmetic) and a fixed copy (memory). They never change, so whatever changes in
  their time is the machine: other work, heat, another clock. They run between any two measurements, and each
  measurement is also given *relative* to those just before and after it. Two reports are compared by that.

After a warm-up, every case is measured once per round, not one case after the other: a busy minute then touches all
of them a little instead of one of them entirely. Told are medians and quartiles.

The rooms: `settings` says what is wanted, `rows` holds results and their JSON, `cases` and `film` what can be measured,
`measure` the rounds, `compare` tells change from noise, `chart` draws, `child` is the process whose memory is looked
at.
"""
