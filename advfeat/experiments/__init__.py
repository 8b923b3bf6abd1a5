"""Experiments: profiles, recipes, and the networks, datasets and records that are made once and kept."""
