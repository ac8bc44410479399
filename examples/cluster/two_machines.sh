#!/bin/bash
# A Ray cluster of two machines, or more. Both need the same Python, quickstudy[cluster] in the same version, and the same
# token, without which anybody who reaches the ports could run code:
#
#   ray get-auth-token --generate                        # once, on the first machine: ~/.ray/auth_token
#   scp ~/.ray/auth_token second:.ray/auth_token         # to each other machine
#
# Then, with the first machine's own address in place of 192.0.2.10:
#
#   examples/cluster/two_machines.sh head 192.0.2.10     # on the first machine
#   examples/cluster/two_machines.sh join 192.0.2.10     # on each other one
#   export RAY_AUTH_MODE=token
#   quickstudy train grasping --method maml --cluster auto --output-dir runs/shared     # on the first machine
#   examples/cluster/two_machines.sh stop                # on each, in the end
#
# Machines must reach each other on all TCP ports; ray's own pages say how to narrow that.

set -eu
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
usage="Say: $0 head ADDRESS, join ADDRESS or stop."
case "${1:-}" in
    head) ray start --head --node-ip-address="${2:?$usage}" --port=6379 --include-dashboard=false ;;
    join) ray start --address="${2:?$usage}:6379" ;;
    stop) ray stop ;;
    *) echo "$usage" >&2; exit 2 ;;
esac
