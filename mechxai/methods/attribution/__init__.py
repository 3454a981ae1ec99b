"""Attribution: scores of a prompt's tokens, words or spans, and evaluations of such scores."""
