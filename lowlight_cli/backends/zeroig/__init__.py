"""ZERO-IG: three tiny networks fitted to the one photo."""
