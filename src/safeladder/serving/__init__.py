"""For people and programs outside: a model that answers, live or over HTTP."""
