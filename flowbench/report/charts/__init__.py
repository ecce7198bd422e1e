"""Charts of a report: Vega-Lite specifications with their data, and files made of them."""
