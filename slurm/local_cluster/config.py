"""slurm.conf of the local cluster. Times are short, so that faults show within seconds."""

from __future__ import annotations

import os
import socket
from pathlib import Path

TEMPLATE = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
# No systemd and no cgroups: they need not be there in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
MaxArraySize=1001
MaxJobCount=10000
JobRequeue=1
ReturnToService=2
SlurmdTimeout={node_timeout}
SlurmctldTimeout=5
InactiveLimit=0
KillWait=3
MinJobAge={forget_after}
MessageTimeout=8
SlurmctldDebug=info
SlurmdDebug=info
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first_port}-{last_port}] \
CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP
# Its jobs take the place of the others', which go back into the queue.
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=10 State=UP
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""


def free_ports(count: int) -> int:
    """The first of `count` neighbouring TCP ports of 127.0.0.1 that nobody uses now.

    Raises:
        OSError: there is no such run of ports.
    """
    # Two clusters that start at the same moment begin to look in different places.
    places = range(17000, 30000 - count, count)
    begin = os.getpid() % len(places)
    for first in (*places[begin:], *places[:begin]):
        taken = False
        for port in range(first, first + count):
            with socket.socket() as probe:
                taken |= probe.connect_ex(("127.0.0.1", port)) == 0
        if not taken:
            return first
    raise OSError("no free ports between 17000 and 30000")


def slurm_conf(
    folder: Path,
    *,
    nodes: int,
    cpus: int,
    memory: int,
    node_timeout: int,
    forget_after: int,
) -> str:
    """The text of slurm.conf.

    folder: absolute, for everything the cluster writes. cpus, memory (MiB): of each node; nodes
    share the machine and may promise more than it has. node_timeout (s): until a silent node is
    down. forget_after (s): until squeue forgets a job that has ended.
    """
    port = free_ports(nodes + 1)
    return TEMPLATE.format(
        folder=folder,
        host=socket.gethostname().partition(".")[0],
        controller_port=port,
        first_port=port + 1,
        last_port=port + nodes,
        nodes=nodes,
        cpus=cpus,
        memory=memory,
        node_timeout=node_timeout,
        forget_after=forget_after,
    )
