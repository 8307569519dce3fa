"""Development tools for reports: the chart library that ships inside them."""
