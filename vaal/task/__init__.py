"""The task learner T: what it is, the engine's own networks, and how they are trained."""
