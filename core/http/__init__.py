"""HTTP to other machines: calls to addresses that users give, made only to those that are public.

Requests that come in are the API's: none of its doors has a place here.
"""
