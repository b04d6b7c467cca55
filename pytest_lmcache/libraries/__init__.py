"""The libraries whose calls are intercepted, a folder for each."""
