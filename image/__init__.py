"""Pictures as tokens: data, tokenisers, scores."""
