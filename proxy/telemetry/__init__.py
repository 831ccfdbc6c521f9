"""Counters, their exposition, and the log. Counts what other layers tell it and decides nothing."""
