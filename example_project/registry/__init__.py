"""Crawls the register of companies and the court's search."""
