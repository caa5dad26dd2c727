"""DarkIR: one trained network against darkness, noise and blur.

adapter.py          the backend: settings read off the weights, tiles that agree
lift.py             the exposure step before a network that is told of it
network.py          the network as trained, and its cross-scale-fusion variant
blocks.py           what it is built of
dilated.py          its dilated convolutions, with gradients that are quick on a CPU
inference.py        the network as pictures run through it: constants folded
folded.py           its blocks, folded
pooling.py          channels' averages, which tiles share
convolutions.py     each convolution by the quickest way on a device
kernels.py          the slow steps as kernels for a CUDA GPU
triton_kernels.py   those kernels, the only file that imports Triton
operators.py        the kernels in a form that torch's compiler takes
"""
