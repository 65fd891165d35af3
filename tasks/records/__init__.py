"""The record of every fix, in a database."""
