"""How a model is trained: plan, recipe, loop, and the folder of a run."""
