"""The process that compiles one graph: `python -m quickstudy.compilation.process`, which gets its work by its input.

It leaves the compiled graph under the name that it was told, whole or not at all, and has a status other than 0 and a
last line that says why where it could not.
"""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
import torch._higher_order_ops.triton_kernel_wrap  # which reading a graph takes for granted
import torch._inductor as inductor


def main(job: dict[str, Any]) -> None:
    """Compiles `job["graph"]` for inputs as `job["inputs"]` says, to `job["file"]`."""
    torch.set_num_threads(job["threads"])
    inputs = tuple(
        torch.empty_strided(shape, stride, dtype=dtype, device=device).zero_()
        for shape, stride, dtype, device in job["inputs"]
    )
    with torch.no_grad():
        exported = torch.export.export(job["graph"], inputs, strict=False)
        file = Path(job["file"])
        made = file.with_name(f".{file.stem}-{os.getpid()}.pt2")
        inductor.aoti_compile_and_package(exported, package_path=str(made), inductor_configs=job["options"])
    made.replace(file)


if __name__ == "__main__":
    try:
        main(pickle.load(sys.stdin.buffer))  # from the training that started this process, by a pipe of their own
    except Exception as error:
        lines = str(error).strip().splitlines()
        sys.exit(f"{type(error).__name__}: {lines[0] if lines else 'no reason'}")
