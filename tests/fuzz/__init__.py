"""Whatever bytes come, the parsers keep their promises."""
