"""What the Gaussian process posteriors are made of: training, factors, sparse bounds, function draws."""
