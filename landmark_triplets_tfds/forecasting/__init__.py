"""What a forecast is computed from; `forecast` puts it together."""
