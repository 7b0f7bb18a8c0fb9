"""What the experiment scripts share: problems, data, the Hessian operator, logs, overlap, plots."""
