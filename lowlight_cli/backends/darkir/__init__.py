"""DarkIR: one trained network against darkness, noise and blur."""
