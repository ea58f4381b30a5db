"""The binding benchmark: does each character get its own attributes? docs/binding-protocol.md says how it is
measured, and was written before the first run.

`prompt_sets` and `frozen` are what is asked, `arms` and `drawing` how it is drawn, `reading` and
`colour_rules` what is read back, `validation` and `injection` how far the readers can be believed, `figures`,
`intervals`, `correction`, `guards` and `dose_response` what is counted, `run` and `report` the command.
"""
