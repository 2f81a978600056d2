"""Tests of the SDK and the command line. `scripted_server.py` speaks the API's shapes and breaks where a test says so;
`test_with_service.py` holds the client against the real service.
"""
