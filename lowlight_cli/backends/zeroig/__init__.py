"""ZERO-IG: three tiny networks fitted to the one photo.

adapter.py      the backend: fitted or published weights, exact in tiles
network.py      the networks, and how a state dict becomes them
losses.py       the seven losses that fit them

What makes a step of a fit quick on a CPU, and gives the same numbers:

fused.py        the hidden stacks as single autograd functions
residual.py     the illuminator's batch norm and relu, with their gradients
winograd.py     3x3 convolutions with a quarter of the multiplications
mixtures.py     Winograd's transforms of tiles
edges.py        the first and the last convolution, of a few channels
patches.py      patches of such pictures, for products of matrices
pointwise.py    what happens pixel by pixel, in one pass over memory
strips.py       pictures strip by strip, shared out over the cores
"""
