"""Optimisation, for the encoder alone: a SIREN is fitted to a grid and quantised while it is fitted."""
