"""The lab: real servers with real faults, as plain processes."""
