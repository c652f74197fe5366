"""A SLURM of virtual nodes on this machine, for trying things out.

python -m slurm.local_cluster start FOLDER [--nodes 2] [--cpus 2]    then follow what it prints
python -m slurm.local_cluster stop FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from maskgit.common.cli import ArgumentParser, exit_code
from maskgit.common.errors import UsageError
from slurm.local_cluster.cluster import LocalCluster


def main(arguments: list[str] | None = None) -> int:
    """Prints the shell line that points SLURM's programs at the cluster. Exit code 2: cannot."""
    parser = ArgumentParser(prog="python -m slurm.local_cluster", description=__doc__)
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="for logs and state")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2, help="of each node")

    def run() -> None:
        options = parser.parse_args(arguments)
        if options.nodes < 1 or options.cpus < 1:
            raise UsageError("--nodes and --cpus: expected at least 1")
        cluster = LocalCluster(options.folder, nodes=options.nodes, cpus=options.cpus)
        if options.action == "stop":
            return cluster.stop()
        try:
            cluster.start()
        except RuntimeError as error:
            raise UsageError(str(error)) from None
        print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}")

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
