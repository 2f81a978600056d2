"""The mixture of the experts' study, made of a real model, and its cells: experts and weights removed from it."""
