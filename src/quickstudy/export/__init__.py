"""From a trained learner to a robot: graphs that need no PyTorch, in one file."""
