"""One run and its folder: a model, a task and a method become a result, figures, a report and a manifest."""
