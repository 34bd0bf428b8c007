# Aliases: the one entry is ./portal, see ./portal --help.
.PHONY: run test check bench
run test check bench:
	./portal $@
