"""The published results of this project: kept result files, the claims of the papers, and the pages made of both.

    docs/results/SUITE/runs/      result files of every run: `backbones.core.results`, per-image data, no weights
    docs/results/SUITE/*.json     their comparison, one per baseline that a claim names, and how they were made
    docs/claims.yaml              each claim of a paper, and the number that tests it
    docs/results.md, claims.md    written from these by tools/publish.py

A suite can be published seed by seed: runs of another call are added to those that are there.
"""
