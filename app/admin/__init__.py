"""What support staff see and do: functions that answer a question, and endpoints over them.

`devices`, `users`, … answer with plain frozen structs (`answers`); `routes` puts them behind
`/v1/admin` for the roles `support` and `admin`. A page for people uses the same functions.
"""
