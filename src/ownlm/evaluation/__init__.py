"""How good a model is: scores of given text, intervals around them, and facts beside their baselines."""
