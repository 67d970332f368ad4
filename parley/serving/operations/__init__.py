"""How the app is operated: its end, what it counts, whether it is well."""
