"""Side-by-side comparison of backbones from result files alone: statistics, tables, figures and the HTML report."""
