"""The texts of new packages, as templates of Jinja."""
