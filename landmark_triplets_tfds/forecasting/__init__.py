"""What a forecast is computed from, and what fits a budget; `forecast` puts it together."""
