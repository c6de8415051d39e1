"""Who takes part: this library, the limits, and the peers with the versions that are installed for them."""

from typing import Literal, NamedTuple


class Peer(NamedTuple):
    """One that is measured."""

    name: str
    """What it is called on the command line, and its module in `benchmarks.peers`."""
    title: str
    """What it is called in tables."""
    kind: Literal["ours", "limit", "peer"] = "peer"
    requirements: tuple[str, ...] = ()
    """What is installed into an environment of its own; none: it runs in the tool's own."""
    module: str = ""
    """Its adapter, where that is not `benchmarks.peers.NAME`."""

    @property
    def is_limit(self) -> bool:
        """Whether it is no peer, but what nothing can be faster than."""
        return self.kind == "limit"

    @property
    def adapter(self) -> str:
        """The module to run."""
        return self.module or f"benchmarks.peers.{self.name}"


OURS = Peer("dotmac", "dotmac-workflows", "ours")
"""All others are compared with it."""

CATALOGUE = (
    Peer("bare", "limit: no engine", "limit"),
    Peer("writer", "limit: our store alone", "limit"),
    Peer("original", "the original's loop"),
    Peer("handwritten", "own state column"),
    Peer("dbos", "DBOS", requirements=("dbos==3.4.0",)),
    Peer("langgraph", "LangGraph", requirements=("langgraph==1.2.24", "langgraph-checkpoint-sqlite==3.1.2")),
    Peer("burr", "Burr", requirements=("burr==0.42.0", "aiosqlite==0.22.1")),
    Peer("pydantic_graph", "pydantic-graph", requirements=("pydantic-graph==2.68.0",)),
    Peer("spiffworkflow", "SpiffWorkflow", requirements=("spiffworkflow==3.2.0",)),
    Peer("statemachine", "python-statemachine", requirements=("python-statemachine==3.2.2",)),
    Peer("transitions", "transitions", requirements=("transitions==0.9.3",)),
    Peer("llama_workflows", "LlamaIndex Workflows", requirements=("llama-index-workflows==2.26.1",)),
)
