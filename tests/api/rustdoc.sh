#!/bin/sh
# rustdoc with the options that are not stable yet, such as its JSON. Cargo gets this program as RUSTDOC:
# if RUSTC_BOOTSTRAP were set for Cargo, it would build all dependencies again.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
