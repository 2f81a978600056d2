"""The REST API: FastAPI routes, one file per noun in `routes/`, over the services in `core`. Never imports torch."""
