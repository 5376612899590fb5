"""The similarity recipe: an index of training queries, to which records and models can be added."""
