"""The async shell: the one loop, what it drives in this process, and where that is recorded."""
