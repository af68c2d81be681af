"""What a run costs before its first step, and in memory: a process for each contestant, which trains the reference VAE."""

import json
import pathlib
import subprocess
import sys

from peers.contestants import EAGER, JAX, KERNELS, OURS

STEPS, ROUNDS = 100, 3
IMPORTS = {
    OURS: "from scratchgen.models.vae import VAE",
    KERNELS: "from scratchgen.models.vae import VAE; from scratchgen.kernels.native import compiled_kernels",
    EAGER: "import torch",
    JAX: "import jax, jax.numpy",
}
NAMES = {  # {what is measured: (the name of its row, unit)}
    "import": ("import", "ms"),
    "first step": ("import and first step of the VAE", "ms"),
    "memory": (f"peak memory of {STEPS} steps, 63 MB of it data", "MB"),
}
CHILD = """
import time
started = time.perf_counter()
{imports}
imported = time.perf_counter() - started
import json, resource, sys
sys.path.insert(0, {folder!r})
from peers.cases import CASES
from peers.contestants import TRAINING
step, synchronise = TRAINING[{name!r}](CASES[0], "cpu")
step()
synchronise()
first = time.perf_counter() - started
for _ in range({steps} - 1):
    step()
synchronise()
print(json.dumps([imported, first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def measured(name, steps=STEPS):
    """{what: number} of a process of this contestant, or raises RuntimeError with its last line."""
    folder = str(pathlib.Path(__file__).parents[1])
    code = CHILD.format(imports=IMPORTS[name], folder=folder, name=name, steps=steps)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.splitlines() or [f"its process ended with code {done.returncode}"])[-1])
    imported, first, memory = json.loads(done.stdout.splitlines()[-1])
    bytes_each = 1 if sys.platform == "darwin" else 1024
    return {"import": 1e3 * imported, "first step": 1e3 * first, "memory": memory * bytes_each / 1e6}
