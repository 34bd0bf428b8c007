"""What another Django project needs besides the middleware to be measured; `manage.py client` makes a wheel of it."""
