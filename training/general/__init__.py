"""The general recipe: an item response model over many sources and models, for routers before the first label."""
