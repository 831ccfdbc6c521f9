"""Metrics of the mesh: what Prometheus asks, what it derives, and the resources that run it.

Belongs here: scrape configuration and rules (`scraping`, pure) and their declaration (`resource`). Does not belong
here: the metrics themselves, which proxies and control-plane processes make.
"""
