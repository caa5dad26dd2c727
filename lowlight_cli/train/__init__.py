"""Train DarkIR networks from a recipe.

`recipe` says everything that decides the result; `scenes` and `photographed` bring the pictures, `samples` the batches;
`network` builds, runs, judges and exports; `loop.train` is a generator of the `events`, which `journal` writes down.
"""
