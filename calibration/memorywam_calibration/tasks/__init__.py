"""Tasks: one episode at a time, here or on a cluster, kept until all are done."""
