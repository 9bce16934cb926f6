"""A Django project, as small as one can be: views that publish, a handler that uses the ORM."""
