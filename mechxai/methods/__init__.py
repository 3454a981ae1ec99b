"""One method per file, by family; a method imports core, model and engine, never another family."""
