"""Run the stages: configuration, placement, supervision, replay and the command line."""
