"""Meta-World (v3 tasks, v2 rewards) stepped many worlds at a time, equal to the package step for step.

`worlds` runs any mixture of the 50 tasks. The tasks in `pushing`, `furniture` and `tools` are written for many worlds
at once; the rest go through the package's own environments (`stock`), behind the same interface.
"""
