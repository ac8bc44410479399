#!/bin/bash
# Trains on a Ray cluster of two network namespaces, each with its own loopback and its own address, as two machines have:
# what works there does not lean on localhost. Kills the second machine half-way. Not part of the tests: it needs root.
#
#   checks/cluster_namespaces.sh .venv/bin/python
#
# Exits with 1 where the training did not finish, or 77 where this machine has no network namespaces.

set -u
python=${1:-.venv/bin/python}
bin=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")
tag=qs$$
one=$tag-one two=$tag-two
work=$(mktemp -d)
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d " \n")
export PATH=$bin:$PATH

inside() { ip netns exec "$@"; }

if ! ip netns add $one 2>/dev/null; then
    echo "No network namespaces here: nothing was checked."
    exit 77
fi

finish() {
    for name in $one $two; do
        for process in $(ip netns pids $name 2>/dev/null); do kill -9 "$process" 2>/dev/null; done
        ip netns del $name 2>/dev/null
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

ip netns add $two
ip link add one netns $one type veth peer name two netns $two
inside $one ip addr add 10.77.0.1/24 dev one
inside $two ip addr add 10.77.0.2/24 dev two
for name in $one $two; do inside $name ip link set lo up; done
inside $one ip link set one up
inside $two ip link set two up

start=(ray start --num-cpus=1 --object-store-memory=200000000 --disable-usage-stats)
inside $one "${start[@]}" --head --node-ip-address=10.77.0.1 --port=6379 --include-dashboard=false --temp-dir="$work/one" >"$work/head" 2>&1 \
    || { cat "$work/head"; exit 1; }
inside $two "${start[@]}" --address=10.77.0.1:6379 --node-ip-address=10.77.0.2 >"$work/second" 2>&1 \
    || { cat "$work/second"; exit 1; }

run=$work/run
inside $one "$python" -m quickstudy train sinusoid --method maml --training.steps 200 --training.validate-every 20 \
    --cluster 10.77.0.1:6379 --patience 60 --output-dir "$run" >"$work/log" 2>&1 &
training=$!

for _ in $(seq 300); do
    [ -e "$run/checkpoints/best" ] && break
    kill -0 $training 2>/dev/null || break
    sleep 1
done
if [ ! -e "$run/checkpoints/best" ]; then
    cat "$work/log"
    exit 1
fi
echo "Both machines at work; the second one is killed."
for process in $(ip netns pids $two); do kill -9 "$process" 2>/dev/null; done

wait $training
status=$?
cat "$work/log"
grep -q "2 machines, 2 cores" "$work/log" && grep -q "10.77.0.2) is gone during" "$work/log" && [ $status -eq 0 ] || exit 1
echo "A training over two network namespaces went on when one was killed."
