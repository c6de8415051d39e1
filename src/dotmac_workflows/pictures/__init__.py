"""Pictures of a workflow: its plan as a Mermaid flowchart, and what happened as an SVG timeline.

Pure functions of what a workflow object shows and of the rows of a journal: nothing is read or written, no class and
no type of the user's is needed, and the same input gives the same text. What is drawn may come from anybody: names and
messages are put on one line, without what does not print, and escaped.
"""

from .mermaid import to_mermaid
from .svg import timeline_svg

__all__ = ["timeline_svg", "to_mermaid"]
