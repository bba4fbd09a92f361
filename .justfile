# What is run while working on HearthMQ. `just` lists it; each recipe is one line to copy, too.

_default:
    @just --list

# Start the broker
run *arguments:
    cargo run --release -- {{arguments}}

# Everything that a change must pass
check:
    .ci/check

# The rules of the house alone, with the sizes of files and functions
tidy:
    cargo test --test tidy -- --nocapture

# Licences, sources and bans of the dependencies (cargo install cargo-deny --locked)
deny:
    cargo deny check bans licenses sources

# So many steps of the simulated world, from this seed on
world steps="1000000" seed="1":
    HEARTHMQ_WORLD_STEPS={{steps}} HEARTHMQ_WORLD_SEED={{seed}} cargo test --release --test world -- --nocapture random

# Fuzz one target for ten minutes: decode, session or broker
fuzz target:
    cargo +nightly fuzz run {{target}} -- -max_total_time=600

# One micro-benchmark: codec, routing, session, fan_out or memory; `--save-baseline NAME` keeps it
bench name *arguments:
    cargo bench --bench {{name}} -- {{arguments}}

# HearthMQ beside other brokers: `--broker 'NAME=COMMAND with {port}'`, `--broker NAME=ADDRESS`, workloads
compare *arguments:
    cargo bench --bench end_to_end -- {{arguments}}

# Instructions of the micro-benchmarks (needs valgrind); `--baseline NAME` compares
instructions *arguments:
    cargo bench --bench instructions -- {{arguments}}
