"""Mathematics that the recipes share."""
