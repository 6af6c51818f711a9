"""The continual-learning methods by name. Importing this imports none of them."""

from __future__ import annotations

__all__ = ["REGISTRY"]

REGISTRY: dict[str, tuple[str, str]] = {  # name: ("module:Class", what it is in one line)
    "finetune": ("clrl.method:Method", "keep training the same net and protect nothing"),
    "frozen": ("clrl.methods.frozen:Frozen", "after the first task train only the new heads"),
    "joint": (
        "clrl.methods.joint:Joint",
        "learn all tasks so far together: an upper bound",
    ),
    "l2": ("clrl.methods.l2:L2", "hold all weights alike where they were"),
    "ewc": ("clrl.methods.ewc:EWC", "elastic weight consolidation: hold what old tasks rely on"),
    "mas": ("clrl.methods.mas:MAS", "memory aware synapses: hold what outputs are sensitive to"),
    "si": ("clrl.methods.si:SI", "synaptic intelligence: hold what lowered the loss on its way"),
    "spp": ("clrl.methods.spp:SPP", "soft parameter pruning: hold what entropy depends on"),
    "progressive": (
        "clrl.methods.progressive:Progressive",
        "progressive nets: a column a task, laterals from the frozen ones before it",
    ),
    "pathnet": (
        "clrl.methods.pathnet:PathNetMethod",
        "PathNet: evolve a path through modules for each task, freeze what it uses",
    ),
    "lwf": ("clrl.methods.lwf:LwF", "learning without forgetting: distil old heads on new inputs"),
}
