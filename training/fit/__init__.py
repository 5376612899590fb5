"""Mathematics that several recipes share."""
