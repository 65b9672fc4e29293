"""The crash harness: kills, stop signals, power cuts and full disks at every stage of the pipeline (docs/reliability.md)."""
