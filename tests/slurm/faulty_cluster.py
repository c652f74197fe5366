"""The local cluster with what happens to a real one: power cuts, and controllers that forget."""

import signal

from slurm.local_cluster.cluster import LocalCluster, send


class FaultyCluster(LocalCluster):
    """A cluster whose nodes and controller can be killed."""

    def kill_node(self, number: int) -> None:
        """SIGKILL the slurmd of a node and all its job processes: a power cut."""
        name = f"n{number}"
        self._end(name, signal.SIGKILL)
        send(signal.SIGKILL, *self.job_processes(name))

    def kill_controller(self) -> None:
        """SIGKILL slurmctld."""
        self._end("slurmctld", signal.SIGKILL)

    def wipe_controller(self) -> None:
        """Start a slurmctld that knows of no job and numbers them from 1 again."""
        self.forget_jobs()
        self.start_controller("-i")
