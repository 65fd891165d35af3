"""How many files and connections this process may have open: a monitor of thousands of servers needs more than the usual 1,024."""

import resource as limits

OWN_FILES = 1024
"""Among them connections that come and go, of which a probe makes several."""


def allow_connections(resources: int) -> str:
    """Raise this process's limit as far as so many resources need, and as the hard limit allows. Returns what is missing, or nothing."""
    soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    wanted = OWN_FILES + resources
    allowed = wanted if hard == limits.RLIM_INFINITY else min(wanted, hard)
    if soft != limits.RLIM_INFINITY and soft < allowed:
        limits.setrlimit(limits.RLIMIT_NOFILE, (allowed, hard))
    if allowed == wanted:
        return ""
    return f"{resources} resources need up to {wanted} open files, and {hard} are allowed: raise the hard limit, or use more shards"
