"""The ranks of a job on one node: torchrun's agent starts them, waits for them, and learns why they ended."""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import SIGTERM
from tempfile import TemporaryDirectory

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from malmen.errors import InterruptedJobError
from malmen.runtime.rank_process import FAILED, INTERRUPTED, LAUNCHER, LOST
from malmen.runtime.signals import ADVICE, forwarding_signals

SELF = "127.0.0.1"
"""This machine, by a number, because a container may know no name for it."""
HERE = f"{SELF}:0"
"""Where the agent of a single node meets itself: at a free port."""


@dataclass(frozen=True)
class Group:
    """The ranks of a job, and what they run.

    Attributes:
        command: the command of Python that each rank runs, without Python's name.
        log: the log of the job.
        ranks: how many there are on each node.
        threads: how many threads each of them has.
        nodes: how many nodes there are.
        meeting: host and port where the agents of all nodes meet.
    """

    command: Sequence[str]
    log: str
    ranks: int
    threads: int
    nodes: int = 1
    meeting: str = HERE


@dataclass(frozen=True, order=True)
class Reason:
    """Why a job ended; the smallest of several is the one to tell.

    Ranks also fail because another one did, and the agent ends those that are left. So an error that a rank found comes
    before a signal to the job, and that before what ended a rank from outside.

    Attributes:
        place: its place in this order, from 0.
        moment: when it came about, to compare with others of the same place.
        sentence: what to tell.
    """

    place: int
    moment: int
    sentence: str


def run_ranks(group: Group) -> Reason | None:
    """Run the ranks of this node; return why they failed, or None if they did not.

    Signals go on to the ranks, which end after their step and save.
    """
    agents = logging.getLogger("torch.distributed")
    file = logging.FileHandler(group.log, mode="a", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    agents.handlers, agents.propagate = [file], False  # Its words are for the log, not for the terminal.
    os.environ |= {LAUNCHER: str(os.getpid()), "OMP_NUM_THREADS": str(group.threads)}
    with TemporaryDirectory(prefix="malmen-ranks-") as folder, forwarding_signals() as signals:
        try:
            elastic_launch(settings(group, folder), sys.executable)(*group.command)
        except ChildFailedError as error:
            return reason(error.failures, group, signals)
    return None


def settings(group: Group, folder: str) -> LaunchConfig:
    """Return the settings of torchrun's agent, which keeps what ranks say when they fail in a folder."""
    return LaunchConfig(
        min_nodes=group.nodes,
        max_nodes=group.nodes,
        nproc_per_node=group.ranks,
        run_id="malmen",
        rdzv_backend="c10d",
        rdzv_endpoint=group.meeting,
        local_addr=SELF if group.meeting == HERE else None,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(folder),
        signals_to_handle="SIGQUIT",  # It would kill ranks that need longer than half a minute to end their step.
    )


def reason(failures: Mapping[int, ProcessFailure], group: Group, signals: Sequence[str]) -> Reason:
    """Return why a job ended.

    Args:
        failures: the ranks that failed, in the order in which the agent noticed.
        group: all ranks.
        signals: the signals that the job got.
    """
    found = [Reason(5, 0, f"The ranks of this job lost each other; {group.log} may say why.")]
    lost = any(one.exitcode == LOST for one in failures.values())
    if signals:
        found.append(Reason(2, 0, f"The job was ended by {signals[0]}; {ADVICE}."))
    for order, (rank, one) in enumerate(failures.items()):
        who, said = f"Rank {rank} of {group.nodes * group.ranks} of this job", Path(one.error_file).is_file()
        if said and one.exitcode in (FAILED, INTERRUPTED):
            place = 0 if one.exitcode == FAILED else 1 if signals else 4
            found.append(Reason(place, one.timestamp, one.message))
        elif lost and one.exitcode == -SIGTERM:
            continue  # The agent ended it, while it was about to end by itself.
        elif one.exitcode < 0:
            memory = " (out of memory ends processes so)" if one.signal_name() == "SIGKILL" else ""
            found.append(Reason(3, order, f"{who} was ended by {one.signal_name()}{memory}; {ADVICE}."))
        elif one.exitcode != LOST:
            found.append(Reason(3, order, f"{who} ended with status {one.exitcode}; {group.log} may say why."))
    return min(found)


def main() -> None:
    """Run the ranks of one of several nodes; print why they failed, as JSON, and exit with 1."""
    group = Group(**json.loads(sys.argv[1]))
    try:
        found = run_ranks(group)
    except InterruptedJobError as error:
        found = Reason(2, 0, str(error))
    except Exception as error:
        logging.getLogger("torch.distributed").exception("failed")
        found = Reason(3, 0, f"The nodes of this job did not meet ({type(error).__name__}); {group.log} says why.")
    if found:
        print(json.dumps(asdict(found)))
        sys.exit(1)


if __name__ == "__main__":
    main()
