"""A model that computes less: ways to do so, measured, and the fastest that holds."""
