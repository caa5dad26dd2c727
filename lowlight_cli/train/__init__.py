"""Train DarkIR networks from a recipe.

`recipe` says everything that decides the result, and `settings` what a caller may choose besides. `scenes`, with
`radiance` for panoramas, and `photographed` bring the pictures, `samples` the batches, which `loading` makes while
others are trained on. `network` builds, runs, judges and exports; `basis` is what it learns in. `loop.train` is a
generator of the `events`, which `journal` writes down; `validation` says how good the network is by then, `checkpoint`
keeps its state, and `processes` are several that train one.
"""
