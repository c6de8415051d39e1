"""The pure core: what happened, what state that makes, what comes next. No I/O, no clock, no asyncio, no logging."""
