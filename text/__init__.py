"""Stories and texts with blanks: data, writer, scores."""
