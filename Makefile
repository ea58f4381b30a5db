# make demo   a picture from a fresh machine     make test   the tests     make check   format, lint, types, imports
.PHONY: demo test check clean

demo:
	@sh scripts/setup run
	@.venv/bin/python test.py

test:
	@sh scripts/setup dev
	@.venv/bin/python -m pytest

check:
	@sh scripts/setup dev
	@sh scripts/check

clean:
	rm -rf .venv success_output.png
