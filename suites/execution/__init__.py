"""How the stages of a plan are run: graph, scheduler (what is ready), executor (where it runs), slots, progress."""
