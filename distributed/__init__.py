"""Runs the stages of tad on one process or on a Ray cluster, keeps their artifacts, tracks the rounds.

This package and Dask's share the import name `distributed`; tad.cli checks whose it got. Never install both.
"""
