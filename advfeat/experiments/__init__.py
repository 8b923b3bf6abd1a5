"""Experiments: profiles, recipes, and what is made once and kept."""
