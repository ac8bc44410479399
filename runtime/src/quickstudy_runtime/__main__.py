"""The command: `quickstudy-runtime info BUNDLE`, `adapt`, `serve`."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from quickstudy_runtime import __version__
from quickstudy_runtime.errors import QuickstudyError
from quickstudy_runtime.guard import Guard
from quickstudy_runtime.robot import load


def main(words: list[str] | None = None) -> int:
    """Runs a command; the exit status is 0 where it did what it was asked."""
    given = _parser().parse_args(words)
    try:
        given.run(given)
    except QuickstudyError as fault:
        print(f"quickstudy-runtime: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "quickstudy-runtime", description="Runs on a robot what quickstudy learned: no PyTorch, no simulator."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    info = _command(
        commands, "info", _info, "Tell what a bundle is: learner, channels, limits, latency on this machine."
    )
    info.add_argument("bundle", type=Path, help="what 'quickstudy export' wrote")
    adapt = _command(commands, "adapt", _adapt, "Learn a task from demonstrations, and save the skill.")
    adapt.add_argument("bundle", type=Path)
    adapt.add_argument("--demo", type=Path, nargs="+", required=True, help=".npz files with observations and actions")
    adapt.add_argument("--output", type=Path, default=Path("skill.safetensors"))
    serve = _command(commands, "serve", _serve, "Answer over WebSocket, as the field's policy clients (openpi) ask.")
    serve.add_argument("bundle", type=Path)
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--host", default="127.0.0.1", help="an address other than 127.0.0.1 needs --token")
    serve.add_argument(
        "--token", default=os.environ.get("QUICKSTUDY_TOKEN"),
        help="what clients must send: 'Authorization: Api-Key TOKEN'; QUICKSTUDY_TOKEN by default",
    )  # fmt: skip
    serve.add_argument("--demo", type=Path, nargs="+", default=[], help="demonstrations of the task, as .npz files")
    serve.add_argument("--horizon", type=int, default=1, help="actions in an answer, for slow links (default 1)")
    serve.add_argument("--on-bad", choices=("hold", "refuse"), help="what an observation that cannot be used gives")
    serve.add_argument("--rest", type=float, nargs="+", help="the action that keeps the robot where it is")
    serve.add_argument("--margin", type=float, default=Guard.margin, help="how far outside of training (default 1)")
    serve.add_argument("--max-age", type=float, help="seconds that an observation may be old")
    serve.add_argument("--slew", type=float, nargs="+", help="largest change of each action channel in a second")
    return parser


def _command(commands, name, run, about):  # type: ignore[no-untyped-def]
    made = commands.add_parser(name, help=about, description=about)
    made.set_defaults(run=run)
    return made


def _info(given: argparse.Namespace) -> None:
    robot = load(given.bundle)
    bundle, seconds = robot.bundle, robot.warm_up()
    print(
        f"{bundle.method} on {bundle.family}, learned from {bundle.learns_from}; {given.bundle.stat().st_size:,} bytes"
    )
    print(f"rate: {f'{bundle.rate:g} steps a second' if bundle.rate else 'nobody said'}; hash {bundle.hash[:16]}")
    headings = ("observation", "met in training", bundle.observation), ("action", "limits", bundle.action)
    for what, said, channels in headings:
        print(f"{what}: {len(channels)} channels; {said}:")
        for name, unit, low, high in zip(channels.names, channels.units, channels.low, channels.high, strict=True):
            print(f"  {ascii(name)[1:-1]:<28}{ascii(unit)[1:-1]:<8}{low:>12.4g} to {high:<12.4g}")
    rest = "nobody said; say it by --rest" if bundle.action.rest is None else _told(bundle.action.rest)
    print(f"keeps the robot where it is: {rest}")
    print(f"the first adaptation and action took {seconds * 1e3:.1f} ms")


def _told(rest: Any) -> str:
    return " ".join("its last value" if number != number else f"{number:g}" for number in rest)


def _adapt(given: argparse.Namespace) -> None:
    skill = load(given.bundle).adapt(given.demo)
    skill.save(given.output)
    print(f"The skill is in {given.output}.")


def _serve(given: argparse.Namespace) -> None:
    try:
        from quickstudy_runtime import server
    except ImportError:
        raise QuickstudyError("Serving needs two more packages: pip install 'quickstudy-runtime[serve]'.") from None
    slew = given.slew[0] if given.slew and len(given.slew) == 1 else given.slew
    guard = Guard(given.on_bad, given.rest, given.margin, given.max_age, None, slew)
    robot = load(given.bundle, guard)
    milliseconds = 1e3 * robot.warm_up()
    made = server.start(
        robot, given.host, given.port, given.token, given.demo, given.horizon, lambda said: print(said, flush=True)
    )
    host, port = made.socket.getsockname()[:2]
    print(f"Serving {robot.bundle.method} on ws://{host}:{port} (warmed up in {milliseconds:.0f} ms); Ctrl-C ends it.")
    sys.stdout.flush()
    try:
        made.serve_forever()
    finally:
        made.shutdown()


if __name__ == "__main__":
    sys.exit(main())
