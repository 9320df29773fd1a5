"""From events to values: join feedback to calls, fold it, and say what each event ends as."""
