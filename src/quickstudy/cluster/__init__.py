"""More than one machine, by Ray: the same experiment, loop, checkpoints and run folder, with the work of a step shared.

connection  joins a cluster, or starts one of this machine's cores; `Cluster` is what an experiment is given
steps       the steps of the one outer loop, made by workers that each take a share of a meta-batch
group       these workers: started, asked, watched, replaced
worker      one of them
reduction   the gradient of a meta-batch, of which each worker computes its share
trials      episodes of a meta-batch of tasks, collected by several machines
recording   demonstrations, recorded by several machines
cells       independent parts of a comparison, each where a core is free

Nothing in here is imported without `--cluster`, and nothing outside of it imports Ray.
"""
