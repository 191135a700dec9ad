"""An HTTP server for predictors, and a page to look at what they find."""
