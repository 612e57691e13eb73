"""Many runs and one table: ablation, search, matrix; and the model as built."""
