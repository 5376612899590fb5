"""Measure what a router is worth, choose its threshold, and plan a cascade."""
