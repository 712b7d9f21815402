"""Jobs on several ranks: the process that Snakemake starts launches them by torchrun's agent, and waits for them.

Every rank runs the very command that Snakemake ran, so one script serves one process and many. The launcher holds the
job's log and its lock, passes signals on, and says in one sentence why a job ended.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from malmen.jobs.job import logged, own_gpus
from malmen.errors import UserError
from malmen.jobs.common import Machine
from malmen.jobs.rank_frame import in_rank
from malmen.provenance.recording import SnakemakeJob
from malmen.runtime.progress import logger
from malmen.runtime.rank_process import FAILED, INTERRUPTED, LAUNCHER, LOST, end_with_launcher, is_rank
from malmen.runtime.ranks import join
from malmen.runtime.signals import ADVICE, forwarding_signals


def on_ranks(task: SnakemakeJob) -> None:
    """Do a job's work on as many ranks as its machine has.

    With one rank nothing happens. Otherwise the process that Snakemake started launches the ranks and exits after them;
    each rank joins the others and returns, to do the work.

    Args:
        task: the variable ``snakemake`` of the script.
    """
    machine, log = Machine(**task.params["machine"]), Path(task.log[0])
    if machine.ranks == 1:
        return
    if is_rank():
        end_with_launcher()
        with in_rank(log):
            machine.set_up()
            join(machine.device)
        return
    with logged(log), own_gpus(task):
        launch(machine, sys.orig_argv[1:], log)
    sys.exit()


def launch(machine: Machine, command: Sequence[str], log: Path) -> None:
    """Run a command of Python in all ranks of a job, and wait until they have ended.

    Args:
        machine: its ranks, and the threads of each.
        command: the command, without the name of Python.
        log: the log of the job.

    Raises:
        UserError: if a rank failed; says why the first one did.
    """
    agents = logging.getLogger("torch.distributed")
    agents.handlers, agents.propagate = logger.handlers[1:], False  # Its words are for the log, not for the terminal.
    os.environ |= {LAUNCHER: str(os.getpid()), "OMP_NUM_THREADS": str(machine.threads)}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=machine.ranks,
        run_id="malmen",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # The agent takes a free port.
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle="SIGQUIT",  # It would kill ranks that need longer than half a minute to end their step.
    )
    with forwarding_signals() as signals:
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            raise UserError(reason(error.failures, machine.ranks, signals, log)) from None


def reason(failures: Mapping[int, ProcessFailure], size: int, signals: Sequence[str], log: Path) -> str:
    """Say why a job ended.

    Ranks also fail because another one did, and the agent ends those that are left. So what a rank says of itself comes
    first, then what the job was told, then what ended a rank from outside.

    Args:
        failures: the ranks that failed, in the order in which the agent noticed.
        size: the number of ranks.
        signals: the signals that the launcher passed on.
        log: the log of the job.
    """
    first_error = min(told(failures, FAILED), key=lambda one: one.timestamp, default=None)
    if first_error:
        return first_error.message
    if signals:
        said = [one.message for one in told(failures, INTERRUPTED)]
        return said[0] if said else f"The job was ended by {signals[0]}; {ADVICE}."
    for rank, one in failures.items():
        if one.exitcode < 0:
            memory = " (out of memory ends processes so)" if one.signal_name() == "SIGKILL" else ""
            return f"Rank {rank} of {size} of this job was ended by {one.signal_name()}{memory}; {ADVICE}."
        if one.exitcode not in (INTERRUPTED, LOST):
            return f"Rank {rank} of {size} of this job ended with status {one.exitcode}; {log} may say why."
    return f"The ranks of this job lost each other; {ADVICE}."


def told(failures: Mapping[int, ProcessFailure], status: int) -> list[ProcessFailure]:
    """Return the failures with a status for which a rank left a sentence."""
    return [one for one in failures.values() if one.exitcode == status and Path(one.error_file).is_file()]
