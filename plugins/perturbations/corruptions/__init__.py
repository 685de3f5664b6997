"""The common corruptions of Hendrycks and Dietterich 2019."""
