"""Anomalies: what good parts look like, learnt without a single defect."""
