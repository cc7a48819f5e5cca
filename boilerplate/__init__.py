"""Method text and references, filled in by `bids_app.report.page`."""
