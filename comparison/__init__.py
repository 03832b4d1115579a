"""Compare backbones from their result files: statistics, tables, figures and the HTML report."""
