"""The database itself: tables, migrations, partitions, statement forms and connections."""
