"""Zero-shot: ZERO-IG fitted to the photos themselves. No torch here, because the command line reads `settings`.

- `settings`: what a caller may choose.
- `fit`: the fit itself, a generator of steps.
- `fitted`: an enhancer with the fitted weights.
- `files`: photos in, results, weights, previews and logs out.
- `pretrain`: how the start of the fast preset was trained.
- `finish`: white balance and contrast, for those who ask.
- `film`: one fit for a film, to a few of its frames.
- `log`: a line per step, and at the end `curve`, the loss as a picture.
"""
