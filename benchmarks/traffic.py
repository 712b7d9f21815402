"""Operations and bytes of one meta-step on several ranks (GPUs), from the shapes of the models; it measures nothing.

A rank does its share of what ``floor.py`` counts for the rows; the system of a layer is solved by one rank, so that R
ranks solve six layers in the time of 6 / R, rounded up; what is left, every rank does. Bytes are those that pass a
rank's link in each direction, by the convention of nccl-tests: a sum for one rank and a tensor from one rank pass
everywhere whole, a sum for all 2 (R - 1) / R times, and rows gathered by all (R - 1) / R times. Nothing is taken to
travel while a rank computes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import floor
from floor import EDITED, RANK, Counts, Shape, head, row, shapes

FLOAT32 = 4
RANKS = (1, 2, 4, 8)
POINTS = [("gpt2", 64), ("gpt2", 4096), ("gpt-j", 16_384)]
ADAM = 7
"""How often a step of Adam passes a tensor of the parameters' size: four are read and three written."""
ENCODING = 60e-6
"""Seconds of one core to encode a prompt: tried once, with 500 tuples and the demo's GPT-2, on an EPYC."""


@dataclass(frozen=True)
class Machine:
    """How fast ranks compute and exchange.

    Attributes:
        name: of its links.
        model: operations a second in a weight of two bytes; one of four takes :attr:`float32`.
        float32: operations a second in float32.
        memory: bytes a second of a rank's memory.
        link: bytes a second that pass a rank's link in each direction.
    """

    name: str
    model: float
    float32: float
    memory: float
    link: float


CPU = Machine("one CPU thread a rank", 115e9, 115e9, 50e9, 1.3e9)
"""Operations as in docs/performance.md, on a Xeon; memory (Adam's) and link (gloo's, of two processes) on an EPYC."""
NVLINK = Machine("NVLink 4", 500e12, 50e12, 3.35e12, 370e9)
PCIE = Machine("PCIe 4", 500e12, 50e12, 3.35e12, 20e9)
"""The H100's peaks are 989 and 67 TFLOP/s; half and three quarters of them are assumptions, as is float32 without TF32.

370 GB/s is what NCCL's ring reaches of NVLink 4's 450 (NVIDIA/nccl-tests, issue 212; NVIDIA/nccl, issue 1455), and 20
what it reaches of PCIe 4's 32 (NVIDIA/nccl-tests, issue 178).
"""
ON = {("gpt2", 64): [CPU], ("gpt2", 4096): [NVLINK, PCIE], ("gpt-j", 16_384): [NVLINK, PCIE]}


@dataclass(frozen=True)
class Step:
    """A meta-step of a model at one m, with the six layers of the paper.

    Args:
        name: of the model.
        m: the number of edits.
    """

    name: str
    m: int

    @cached_property
    def shape(self) -> Shape:
        """The model's shape."""
        return shapes()[self.name]

    @property
    def rows(self) -> int:
        """n, the rows of a layer: the edits' answer tokens."""
        return self.m * self.shape.answers

    @property
    def widths(self) -> tuple[int, int]:
        """d_in and d_out of an edited layer."""
        return 4 * self.shape.width, self.shape.width

    @property
    def dual(self) -> bool:
        """Whether a layer's system has n unknowns instead of d_in."""
        return self.rows < self.widths[0]

    @property
    def parameters(self) -> int:
        """How many numbers the hyper-network learns; its vectors are left out."""
        return 2 * 2 * sum(self.widths) * RANK

    # What is computed.

    @cached_property
    def model_split(self) -> float:
        """Operations of the language model's passes, all shared out by edits."""
        return sum(floor.language_model(self.shape, self.m)[0].values())

    @cached_property
    def editor_split(self) -> float:
        """Operations of the editor that are shared out by rows: the hyper-network, and products of the rows."""
        everything = sum(floor.editor(self.shape, self.m)[0].values())
        return everything - EDITED * self.solution

    @property
    def solution(self) -> float:
        """Operations of a layer's system on the rank that solves it.

        With d_in unknowns these are the factorisation and two solutions; the rank that solves a system of n unknowns
        also forms it, for it has all rows.
        """
        n, (d_in, d_out) = self.rows, self.widths
        return floor.dual(n, d_in, d_out) if self.dual else d_in**3 / 3 + 4 * d_in**2 * d_out

    def operations(self, ranks: int) -> float:
        """Operations of the rank that has most."""
        return (self.model_split + self.editor_split) / ranks + solved(ranks) * self.solution

    @property
    def replicated(self) -> float:
        """Bytes of memory that every rank passes over: Adam's, and the edited weights W + S."""
        d_in, d_out = self.widths
        return FLOAT32 * ADAM * self.parameters + EDITED * d_in * d_out * (FLOAT32 + 2 * self.shape.weight_bytes)

    # What is sent.

    def sent(self, ranks: int) -> Counts:
        """Bytes that pass a rank's link in each direction, all in float32."""
        n, (d_in, d_out) = self.rows, self.widths
        others = (ranks - 1) / ranks
        once = min(1, ranks - 1)
        few = self.dual and n * (d_in + d_out) < d_in * d_out
        gradient = n * d_out if few else d_in * d_out
        if self.dual:
            layer = {
                "rows of all ranks": others * n * (d_in + d_out),
                "sums to the owners": once * gradient,
                "from the owners": once * (d_in * d_out + n * d_out),
            }
        else:
            layer = {
                "rows of all ranks": 0.0,
                "sums to the owners": once * (d_in**2 + d_in * d_out + gradient),
                "from the owners": once * 2.0 * d_in * d_out,
            }
        layers: Counts = {what: FLOAT32 * EDITED * numbers for what, numbers in layer.items()}
        return layers | {"the hyper-network's gradient": FLOAT32 * 2 * others * self.parameters}

    # How long it takes.

    def sharing(self, machine: Machine, ranks: int) -> float:
        """Seconds in which a rank computes its share of the edits and rows."""
        model = machine.float32 if self.shape.weight_bytes == FLOAT32 else machine.model
        return (self.model_split / model + self.editor_split / machine.float32) / ranks

    def sending(self, machine: Machine, ranks: int) -> float:
        """Seconds in which bytes travel."""
        return sum(self.sent(ranks).values()) / machine.link

    def seconds(self, machine: Machine, ranks: int) -> float:
        """Seconds of a step."""
        own = solved(ranks) * self.solution / machine.float32 + self.replicated / machine.memory
        return self.sharing(machine, ranks) + own + self.sending(machine, ranks)

    def speed_up(self, machine: Machine, ranks: int, encoding: float = 0.0) -> float:
        """How many times as fast as one rank so many are, if each also takes so many seconds to encode all tuples."""
        return (self.seconds(machine, 1) + encoding) / (self.seconds(machine, ranks) + encoding)

    @property
    def encoding(self) -> float:
        """Seconds to encode the three tuples of each edit."""
        return 3 * self.m * ENCODING

    def break_even(self, machine: Machine) -> int:
        """The first number of ranks that send for longer than each computes its share of the edits."""
        return next(n for n in range(2, MANY) if self.sending(machine, n) > self.sharing(machine, n))


def solved(ranks: int) -> int:
    """Return how many layers' systems the rank solves that has most."""
    return math.ceil(EDITED / ranks)


MANY = 1_000_000
"""So many ranks that their share of the edits takes no time."""


def steps() -> Iterator[Step]:
    """Yield the steps of the account."""
    for name, m in POINTS:
        yield Step(name, m)


def label(step: Step) -> str:
    """Name a step in a table."""
    return f"{step.name}, {step.m:,}"


def traffic_table() -> list[str]:
    """Return the lines of the table of operations and bytes by the number of ranks."""
    kinds = list(Step(*POINTS[0]).sent(1))
    lines = head(
        "model, m, ranks", ["10¹² operations of a rank", "of them solving", *(f"GB: {kind}" for kind in kinds), "GB"]
    )
    for step in steps():
        for ranks in RANKS:
            sent = step.sent(ranks)
            cells = [floor.number(step.operations(ranks)), floor.number(solved(ranks) * step.solution)]
            cells += [f"{size / 1e9:.3g}" for size in (*sent.values(), sum(sent.values()))]
            lines.append(row(f"{label(step)}, {ranks}", cells))
    return lines


def speed_up_table() -> list[str]:
    """Return the lines of the table of computed speed-ups, and of where they end."""
    several = RANKS[1:]
    names = ["s on one rank", *(f"on {ranks}" for ranks in several), "at most", "as long sending from"]
    lines = head("model, m, link", [*names, "on 8, if each encodes all"])
    for step in steps():
        for machine in ON[step.name, step.m]:
            cells = [f"{step.seconds(machine, 1):.3g}"]
            cells += [f"{step.speed_up(machine, ranks):.2f}" for ranks in several]
            cells += [f"{step.speed_up(machine, MANY):.0f}", f"{step.break_even(machine)} ranks"]
            cells.append(f"{step.speed_up(machine, RANKS[-1], step.encoding):.2f}")
            lines.append(row(f"{label(step)}, {machine.name}", cells))
    return lines


def adam_table() -> list[str]:
    """Return the lines of the table of what sharding Adam's state over 8 ranks saves and costs."""
    ranks = RANKS[-1]
    names = ["GB of state saved a rank", "ms of Adam saved", *(f"ms longer sending, {m.name}" for m in (NVLINK, PCIE))]
    lines = head(f"model, m, {ranks} ranks", names)
    for step in list(steps())[1:]:
        size = FLOAT32 * step.parameters * (ranks - 1) / ranks
        cells = [f"{2 * size / 1e9:.2f}", f"{1e3 * ADAM * size / NVLINK.memory:.2f}"]
        lines.append(row(label(step), [*cells, *(f"{1e3 * size / machine.link:.1f}" for machine in (NVLINK, PCIE))]))
    return lines


def main() -> None:
    """Print the tables."""
    for table in (traffic_table, speed_up_table, adam_table):
        print("\n".join([*table(), ""]))


if __name__ == "__main__":
    main()
