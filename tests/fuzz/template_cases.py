"""Chat templates of strangers: programs that try to get out, to go on for ever, or to write without end."""

OUT = (
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch escaped') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].popen('touch escaped').read() }}",
    "{{ namespace.__class__.__mro__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__self__.__class__.__base__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ messages.clear() }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ ('{0.__class__.__init__.__globals__}' | format(messages)).x.y }}",
    "{% set x = messages | attr('__class__') %}{{ x.__mro__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch escaped') }}",
    "{% extends 'escaped' %}",
)
"""Ways to code, files, and the values of others."""

ENDLESS = (
    "{% for i in range(99999) %}\n{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro again() %}\n{{ again() }}{% endmacro %}{{ again() }}",
    "{% for i in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
    "{{ range(10 ** 12) }}",
    "{{ lipsum(n=10 ** 8) }}",
    "{% set ns = namespace(n=3) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "{{ 7 ** (7 ** (7 ** 7)) }}",
)
"""Ways to take all of the time."""

LARGE = (
    "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ [0] * 10 ** 10 }}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{{ 'a' | center(10 ** 11) }}",
    "{{ '%99999999999d' % 1 }}",
    "{{ 'a\nb' | indent(10 ** 11) }}",
)
"""Ways to take all of the memory or of the disk."""

BROKEN = (
    "{% if %}",
    "{{ messages[7].content }}",
    "{{ nothing.at.all }}",
    "{{ messages[0] + 1 }}",
    "{{ '\\ud800' }}",
    "{{ messages | tojson(indent='a' * 100, sort_keys=3, ensure_ascii=nothing.x) }}",
    "{% generation %}{{ nothing.x }}{% endgeneration %}",
    "{{ 1 / 0 }}",
)
"""Ways to fail."""

TEMPLATES = (*OUT, *ENDLESS, *LARGE, *BROKEN)
