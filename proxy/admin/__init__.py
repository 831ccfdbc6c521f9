"""The admin port: routes as functions of a request. The HTTP server they are bound to is not here."""
