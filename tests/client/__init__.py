"""Tests of the SDK and the command line. `scripted_server.py` speaks the API's shapes and breaks where a test says so;
`test_commands_with_service.py` holds the commands against the real service.
"""
