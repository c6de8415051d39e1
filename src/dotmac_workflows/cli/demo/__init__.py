"""``dotmac-workflows demo``: sample orders as real workflows, in processes that are really killed.

`script` is the demo: it starts `worker` as a process of its own, kills it, has other processes decide, starts it
again, and checks in both databases that all ended as it says. `orders` is what any user would write: a workflow.
"""

from .orders import Order

__all__ = ["Order"]
